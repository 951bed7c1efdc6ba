from modalmix.data import split_from_labels


def test_what_each_view_sees(dataset_of):
    data = dataset_of([0, 0, 0, 1], [0, 1, 2, 2], labels=["train", "valid", "test", "test"], n_items=4)
    split = split_from_labels(data, data.labels)
    train, valid, test = split.train_data(), split.validation(), split.testing()
    assert train.interactions.item.tolist() == [0]
    assert train.warm.tolist() == [True, False, False, False]
    assert (train.n_users, train.n_items) == (2, 4)
    assert (valid.name, valid.seen.item.tolist(), valid.positives.item.tolist()) == ("valid", [0], [1])
    assert (test.name, test.seen.item.tolist(), test.positives.item.tolist()) == ("test", [0, 1], [2, 2])
    assert test.train.item.tolist() == [0]
    assert test.warm.tolist() == [True, False, False, False]


def test_hash_follows_the_parts(dataset_of):
    data = dataset_of([0, 0, 1], [0, 1, 1])
    one = split_from_labels(data, ["train", "valid", "test"])
    assert one.sha256 == split_from_labels(data, ["train", "valid", "test"]).sha256
    assert one.sha256 != split_from_labels(data, ["train", "test", "valid"]).sha256
    assert one.train_data().sha256 == split_from_labels(data, ["train", "test", "valid"]).train_data().sha256
