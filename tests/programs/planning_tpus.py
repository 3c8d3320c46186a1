"""Plans of a matrix product on TPU topologies, the arguments of the program."""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import sys

import jax

from star_keras import planning


def plan(topology, rows):
    devices = planning.tpu_devices(topology)
    sharding = jax.sharding.SingleDeviceSharding(devices[0])
    x = jax.ShapeDtypeStruct((rows, 4096), "bfloat16", sharding=sharding)
    w = jax.ShapeDtypeStruct((4096, 4096), "bfloat16", sharding=sharding)
    plan = planning.plan(jax.jit(lambda x, w: x @ w).lower(x, w), devices[0])
    seconds = max(plan.cost.cycles, 1) / plan.chip.clock
    return {
        "devices": len(devices),
        "kind": devices[0].device_kind,
        "fits": plan.fits,
        "memory": plan.memory,
        "share_of_peak": 2 * rows * 4096**2 / seconds / plan.chip.flops,
    }


found = {name: plan(name, 2**13) for name in sys.argv[1:]}
found["too_large"] = plan("v5e-8", 2**22)
try:
    planning.tpu_devices("v3-7")
except ValueError as error:
    found["error"] = str(error)
found["jax"] = [device.platform for device in jax.devices()]
json.dump(found, sys.stdout)
