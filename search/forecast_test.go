package search_test

import (
	"testing"

	"igcsearch/search"
	"igcsearch/space"
)

// TestPredict compares forecasts with sums worked out by hand.
func TestPredict(t *testing.T) {
	t.Parallel()
	state := func(m int, status search.Status, epochs, multiplyAdds int, seconds ...float64) search.TrialState {
		s := search.TrialState{Trial: search.Trial{Key: search.Key{System: space.PairSystem(space.Pair{L: 2, M: m})},
			Status: status, Epoch: len(seconds), Epochs: epochs, MultiplyAdds: int64(multiplyAdds)}}
		for i, sec := range seconds {
			s.History = append(s.History, search.Epoch{Number: i + 1, TrainSeconds: 0.75 * sec,
				EvalSeconds: 0.25 * sec})
		}
		return s
	}
	const done, running, pending, failed, diverged = search.Done, search.Running, search.Pending, search.Failed,
		search.Diverged
	for _, c := range []struct {
		name    string
		trials  []search.TrialState
		workers int
		want    search.Forecast
	}{
		{"nothing is recorded: nothing is known", []search.TrialState{state(1, running, 2, 1), state(2, pending, 2, 1)},
			1, search.Forecast{}},
		{"nobody works: nothing is known", []search.TrialState{state(1, pending, 2, 1, 8)}, 0,
			search.Forecast{Share: 0.5}},
		{"epochs without seconds measure nothing", []search.TrialState{state(1, running, 2, 1, 0)}, 1,
			search.Forecast{Share: 0.5}},
		{"a network is measured by its own epochs, or else by all epochs",
			// Epochs take 2 s and 4 s. The third network has twice the multiply–adds, and all
			// measured epochs together took 8 s for 3 units: 16/3 s an epoch.
			[]search.TrialState{state(1, running, 3, 1, 2, 2), state(2, running, 3, 1, 4), state(3, pending, 3, 2)}, 1,
			search.Forecast{Share: 3. / 12, Seconds: 2 + 8 + 16, Known: true}},
		{"one seed measures the other seeds of its network",
			[]search.TrialState{state(1, running, 4, 1, 2, 4), state(1, pending, 4, 1), state(2, done, 1, 1, 100)}, 1,
			search.Forecast{Share: 3. / 9, Seconds: 6 + 12, Known: true}},
		{"workers share the rest", []search.TrialState{state(1, running, 3, 1, 2), state(1, running, 3, 1, 2),
			state(1, pending, 3, 1)}, 2,
			search.Forecast{Share: 2. / 9, Seconds: (4 + 4 + 6) / 2, Known: true}},
		{"workers cannot share one trial", []search.TrialState{state(1, running, 10, 1, 2), state(1, running, 2, 1, 2)},
			2,
			search.Forecast{Share: 2. / 12, Seconds: 18, Known: true}},
		{"diverged and failed trials have no work left",
			[]search.TrialState{state(1, diverged, 2, 1, 5), state(2, failed, 2, 1, 5), state(1, running, 2, 1, 5)}, 1,
			search.Forecast{Share: 4. / 6, Seconds: 5, Known: true}},
		{"all have ended", []search.TrialState{state(1, done, 1, 1, 5)}, 0, search.Forecast{Share: 1, Known: true}},
		{"there are no trials", nil, 0, search.Forecast{Share: 1, Known: true}},
	} {
		if got := search.Predict(search.Recorded(c.trials), c.workers); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
