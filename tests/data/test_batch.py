import codecs
import pickle

import numpy as np
import pytest

from ntklens.data.batch import BatchError, decode_batch


@pytest.fixture
def samples():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), [label % 10 for label in range(12)]


def encode(rows, labels, protocol=2):
    return pickle.dumps({b"data": rows, b"labels": labels}, protocol=protocol)


def test_pixels_go_where_the_layout_says(samples, formats):
    images, labels = samples
    decoded, decoded_labels = decode_batch(formats.encode_batch(images, labels))
    assert decoded.dtype == decoded_labels.dtype == np.uint8
    rows = np.frombuffer(pickle.loads(encode(images.transpose(0, 3, 1, 2).reshape(12, -1), 0))[b"data"], np.uint8)
    rows = rows.reshape(12, 3072)
    for sample, row, column, channel in ((0, 0, 0, 0), (3, 31, 0, 1), (11, 5, 17, 2), (7, 31, 31, 2)):
        assert decoded[sample, row, column, channel] == rows[sample, 1024 * channel + 32 * row + column]
    assert (decoded == images).all()
    assert decoded_labels.tolist() == labels


def test_python_2_strings_are_read():
    # Written by hand as Python 2 does: its strings are bytes (opcode U), in keys and in the data alike.
    rows = bytes(range(256)) * 12
    content = (
        b"\x80\x02}(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + len(rows).to_bytes(4, "little") + rows + b"tbU\x06labelsq\x02]K\x03au."
    )
    images, labels = decode_batch(content)
    assert (images.transpose(0, 3, 1, 2).ravel() == np.frombuffer(rows, np.uint8)).all()
    assert labels.tolist() == [3]


def test_column_order_is_kept(samples):
    rows = samples[0].reshape(12, -1)
    in_rows, in_columns = (decode_batch(encode(array, samples[1])) for array in (rows, np.asfortranarray(rows)))
    assert (in_rows[0] == in_columns[0]).all()


class Call:
    """Pickles as a call of any function: what a malicious file does."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_malicious_pickle_is_refused_and_not_run(tmp_path, protocol):
    import os

    target = tmp_path / "ran"
    content = pickle.dumps({b"data": Call(os.mkdir, str(target)), b"labels": []}, protocol=protocol)
    with pytest.raises(BatchError, match=r"asks for \w+\.mkdir, which is not loaded"):
        decode_batch(content)
    assert not target.exists()
    pickle.loads(content)  # the twin: the same bytes do run where they are trusted
    assert target.exists()


@pytest.mark.parametrize("function", [eval, np.load, np.frombuffer, codecs.decode, getattr, bytearray, np.memmap])
def test_nothing_but_plain_arrays_is_loaded(function):
    with pytest.raises(BatchError, match="which is not loaded"):
        decode_batch(pickle.dumps(Call(function, "1"), protocol=2))


def test_stand_ins_have_no_way_out():
    # A dotted name would reach the globals of whatever an allowed name stands for.
    content = b"\x80\x04\x8c\x07_codecs\x8c\x12encode.__globals__\x93."
    with pytest.raises(BatchError, match=r"asks for _codecs.encode.__globals__, which is not loaded"):
        decode_batch(content)
    with pytest.raises(BatchError, match="asks for the codec 'zlib'"):
        decode_batch(pickle.dumps(Call(codecs.encode, "x", "zlib"), protocol=2))


def test_huge_shape_allocates_nothing():
    content = pickle.dumps({b"data": Call(np.ndarray, (1 << 45,)), b"labels": []}, protocol=2)
    with pytest.raises(BatchError, match="has data that are no array"):
        decode_batch(content)


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 5000, -1])
def test_truncated(samples, formats, kept):
    with pytest.raises(BatchError, match=r"^is truncated or corrupted"):
        decode_batch(formats.encode_batch(*samples)[:kept])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps([1], protocol=2), "does not hold data and labels"),
        (pickle.dumps({b"data": 1}, protocol=2), "does not hold data and labels"),
        (pickle.dumps({b"data": b"x", b"labels": []}, protocol=2), "has data that are no array"),
        (encode(np.zeros((2, 3072), "f4"), [0, 1]), "has data of type 'f4', not uint8"),
        (encode(np.zeros((2, 3072), "i1"), [0, 1]), "has data of type 'i1', not uint8"),
        (encode(np.zeros((2, 3072), "O"), [0, 1]), "has data of type 'O8', not uint8"),
        (encode(np.zeros((2, 3071), "u1"), [0, 1]), r"has data of shape \(2, 3071\), not \(images, 3072\)"),
        (encode(np.zeros((6144,), "u1"), [0, 1]), r"has data of shape \(6144,\), not \(images, 3072\)"),
        (encode(np.zeros((2, 3072), "u1"), [0]), "has 1 labels for 2 images"),
        (encode(np.zeros((2, 3072), "u1"), [0, 10]), "has a label 10, outside 0 … 9"),
        (encode(np.zeros((2, 3072), "u1"), [-1, 0]), "has a label -1, outside 0 … 9"),
        (encode(np.zeros((2, 3072), "u1"), [0, 1.0]), "has labels that are no list of integers"),
        (encode(np.zeros((2, 3072), "u1"), [0, True]), "has labels that are no list of integers"),
        (encode(np.zeros((2, 3072), "u1"), (0, 1)), "has labels that are no list of integers"),
        (encode(np.zeros((0, 3072), "u1"), [], protocol=3), "holds no images"),
    ],
)
def test_what_is_no_batch(content, reason):
    with pytest.raises(BatchError, match=f"^{reason}$"):
        decode_batch(content)


def test_data_shorter_than_their_shape(samples, formats):
    content = formats.encode_batch(*samples)
    size = b"M\x00\x0c\x86"  # the number 3072 that ends the shape
    assert content.count(b"K\x0c" + size) == 1
    with pytest.raises(BatchError, match="does not have the 39936 bytes of data that its shape says"):
        decode_batch(content.replace(b"K\x0c" + size, b"K\x0d" + size))
