from star_keras.sampling.buckets import bucket


def test_lengths_have_few_buckets():
    lengths = (0, 1, 32, 33, 48, 49, 65, 192, 193, 768)
    buckets = [32, 32, 32, 48, 48, 64, 96, 192, 256, 768]
    assert [bucket(n, 32) for n in lengths] == buckets
    assert {bucket(n, 64) for n in range(2049)} == {
        *(64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
    }
    assert {bucket(n, 64, 4) for n in range(257)} == {
        *(64, 80, 96, 112, 128, 160, 192, 224, 256)
    }


def test_no_bucket_is_shorter_than_its_length():
    for sizes in (2, 4):
        assert all(bucket(n, 32, sizes) >= n for n in range(2049))
