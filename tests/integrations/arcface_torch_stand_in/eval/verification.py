import mxnet as mx


def load_bin(path, image_size):
    with open(path, "rb") as file:
        return mx.image.imdecode(file.read())
