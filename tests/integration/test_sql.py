def test_it(db):
    assert db.enqueue("a")==1
    assert db.states()=={"available":1}
