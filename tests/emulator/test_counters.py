import threading

from imds_proxy.emulator.counters import OTHER_PATHS, Counters, Counts


def test_counts_add_up_over_threads() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(500):
            counters.token_put()
            counters.data_get("/a", with_token=False)
            counters.data_get("/b", with_token=True)
            counters.refused()
            counters.throttled()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.read() == Counts(2000, 2000, 2000, 2000, 2000, {"/a": 2000, "/b": 2000})


def test_a_reset_clears_all() -> None:
    counters = Counters()
    counters.data_get("/a", with_token=True)
    counters.reset()
    assert counters.read() == Counts()


def test_paths_without_end_are_counted_together() -> None:
    counters = Counters()
    for number in range(10_050):
        counters.data_get(f"/{number}", with_token=False)
    counts = counters.read()
    assert counts.v1_gets == 10_050
    assert counts.by_path[OTHER_PATHS] == 50
