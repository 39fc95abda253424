package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/store/table"
	"igcsearch/studies"
)

// scriptRecorded is "recorded DB". It stores the study of testdata/recorded, whose numbers were measured on real
// pictures; only its times are made up, 100 ns for a thousand multiply–adds. It also stores the study "held_out", in
// which validation decides: the same numbers of four pairs, one point higher on the validation pictures. There L64M1
// has the seeds 0 and 1, L40M2 all five, L28M3 2 to 4, and L1M23 one, because its seed 1 diverged.
func scriptRecorded(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: recorded DB")
	}
	const folder = "testdata/recorded"
	s, err := studies.Load(filepath.Join(folder, "study.toml"), nil)
	ts.Check(err)
	text, err := os.ReadFile(filepath.Join(folder, "epochs.csv"))
	ts.Check(err)
	file, err := table.Read(text)
	ts.Check(err)
	recorded := map[string][]search.Epoch{} // by trial
	for _, row := range file.Rows {
		trial := fmt.Sprintf("%s/%d", row.Pair, row.Seed)
		recorded[trial] = append(recorded[trial], row.Epoch)
	}

	ctx := context.Background()
	db, err := store.Open(ctx, ts.MkAbs(args[0]))
	ts.Check(err)
	defer db.Close()
	put := func(s search.Study, epochs func(search.Trial) []search.Epoch, diverged string) {
		trials, err := db.Plan(ctx, s, s.Trials(space.Shape{C: 3, H: 32, W: 32}, 10))
		ts.Check(err)
		for _, t := range trials {
			list := epochs(t)
			if list == nil {
				continue
			}
			turn, err := db.Begin(ctx, t.ID, t.Epochs, search.Attempt{Started: time.Unix(1e9, 0), ISA: "avx512",
				Device: "cpu", CPU: "AMD EPYC"})
			ts.Check(err)
			for _, e := range list {
				e.TrainSeconds = 1e-10 * float64(t.MultiplyAdds) * float64(e.TrainTotal)
				ts.Check(turn.Record(ctx, e, search.Checkpoint{Epoch: e.Number, State: []byte{1}}))
			}
			o := search.Outcome{Status: search.Done}
			if name(t) == diverged {
				o = search.Outcome{Status: search.Diverged, Failure: search.FailedDiverged,
					Message: "epoch 2, step 1: the loss is not finite"}
			}
			_, err = turn.End(ctx, o)
			ts.Check(err)
		}
	}
	put(s, func(t search.Trial) []search.Epoch { return recorded[name(t)] }, "")

	held := search.Default()
	held.Name, held.Dataset, held.Validation, held.Epochs = "held_out", "cifar10", 10_000, 1
	held.Seeds = search.FirstSeeds(5)
	held.Pairs = []string{"64x1", "40x2", "28x3", "1x23"}
	held, err = held.Normalize()
	ts.Check(err)
	has := map[string][]int{"L64M1": {0, 1}, "L40M2": {0, 1, 2, 3, 4}, "L28M3": {2, 3, 4}, "L1M23": {0, 1}}
	put(held, func(t search.Trial) []search.Epoch {
		if !slices.Contains(has[t.System.Label()], t.Seed) {
			return nil
		}
		// Seeds 3 and 4 take the numbers of others.
		e := recorded[fmt.Sprintf("%s/%d", t.System.Label(), (2*t.Seed)%3)][4]
		e.Number = 1
		e.ValidationCorrect, e.ValidationTotal = e.TestCorrect+100+t.Seed, e.TestTotal
		return []search.Epoch{e}
	}, "L1M23/1")
}

func name(t search.Trial) string { return fmt.Sprintf("%s/%d", t.System.Label(), t.Seed) }

// scriptEdit is "edit OLD NEW FROM TO": it writes the file TO, which is FROM with NEW in place of each OLD.
func scriptEdit(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: edit OLD NEW FROM TO")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[2]), args[0], args[1])
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(text), 0o644))
}
