package live

import (
	"slices"
	"testing"
	"time"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
)

// TestHours checks that the time of a GPU counts once for the trials that share it,
// and once for each process.
func TestHours(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return time.Unix(1e9, 0).Add(time.Duration(minutes) * time.Minute) }
	attempt := func(device string, pid, from, to int) store.TrialAttempt {
		var a store.TrialAttempt
		a.Device, a.Host, a.PID, a.Started = device, "h", pid, at(from)
		if to > 0 {
			a.Ended = at(to)
		}
		return a
	}
	r := report.Results{Updated: at(180), Attempts: []store.TrialAttempt{
		attempt("G", 1, 0, 60), attempt("G", 1, 30, 90), attempt("G", 1, 40, 50), // 90 min
		attempt("G", 1, 120, 180),                      // 60 min
		attempt("G", 2, 0, 30), attempt("G", 2, 60, 0), // 30 + 120 min, until 180
		attempt("cpu", 3, 0, 600),
	}}
	r.Trials = []search.TrialState{{History: []search.Epoch{{TrainSeconds: 7000, EvalSeconds: 200}}}}
	got := hours(r)
	want := []Hours{{Amount: "2.0", Of: "training, beside other work"}, {Amount: "5.0", Of: "GPU, G"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
