package trainer_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sbinet/npyio/npz"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer"
)

// tiny is a study that trains in a fraction of a second.
func tiny(t *testing.T) search.Study {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset = "tiny", "synthetic"
	s.TrainPictures, s.TestPictures, s.Validation = 40, 30, 20
	s.Pairs, s.Blocks, s.Epochs, s.Batch, s.Pad = []string{"4x2"}, 1, 4, 16, 2
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// short is tiny with all that makes short trainings good: precise statistics,
// averaged weights, a rate that rises and falls on straight lines.
func short(t *testing.T) search.Study {
	t.Helper()
	s := tiny(t)
	s.BNStatistics, s.BNPictures, s.WeightAverage, s.Schedule, s.Warmup = search.BNPrecise, 32, 0.25,
		search.ScheduleLinear, 0.2
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recorder is a Reporter that keeps everything.
type recorder struct {
	steps       int
	epochs      []search.Epoch
	checkpoints []search.Checkpoint
	onStep      func(epoch, done int)
	fail        error // returned by Epoch
}

func (r *recorder) Step(epoch, done, _ int) {
	r.steps++
	if r.onStep != nil {
		r.onStep(epoch, done)
	}
}

func (r *recorder) Epoch(e search.Epoch, c search.Checkpoint) error {
	e.TrainSeconds, e.EvalSeconds = 0, 0
	r.epochs, r.checkpoints = append(r.epochs, e), append(r.checkpoints, c)
	return r.fail
}

func job(s search.Study, seed int) search.Job {
	return search.Job{Study: s, Key: search.Key{System: space.PairSystem(space.Pair{L: 4, M: 2}), Seed: seed}}
}

func train(t *testing.T, j search.Job) *recorder {
	t.Helper()
	var r recorder
	if err := trainer.New(trainer.Options{}).Train(t.Context(), j, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

func last(r *recorder) []byte { return r.checkpoints[len(r.checkpoints)-1].State }

func TestTrainReportsEveryEpoch(t *testing.T) {
	s := tiny(t)
	s.EvaluateEvery = 3
	r := train(t, job(s, 0))
	if len(r.epochs) != 4 || r.steps != 4*2 {
		t.Fatalf("%d epochs and %d steps, want 4 and 8 (40 pictures in batches of 16)", len(r.epochs), r.steps)
	}
	for i, e := range r.epochs {
		if e.Number != i+1 || e.TrainTotal != 32 || e.TrainCorrect > 32 || !(e.TrainLoss > 0) {
			t.Errorf("epoch %d: %+v", i+1, e)
		}
		evaluated := i == 2 || i == 3 // the third by EvaluateEvery, the last always
		if (e.TestTotal == 30) != evaluated || (e.ValidationTotal == 20) != evaluated {
			t.Errorf("epoch %d: %+v", i+1, e)
		}
	}
}

func TestAResultIsAPureFunctionOfTheJob(t *testing.T) {
	t.Run("by the paper's protocol", func(t *testing.T) { testPureFunction(t, tiny(t)) })
	t.Run("with averages and precise statistics", func(t *testing.T) { testPureFunction(t, short(t)) })
	for _, precision := range []string{search.PrecisionBF16, search.PrecisionAMX} {
		t.Run("in "+precision, func(t *testing.T) {
			s := short(t)
			s.Precision = precision
			testPureFunction(t, s)
		})
	}
}

func testPureFunction(t *testing.T, s search.Study) {
	whole := train(t, job(s, 3))
	t.Run("the same beside seven others and with two threads", func(t *testing.T) {
		tr := trainer.New(trainer.Options{Threads: 2})
		var wg sync.WaitGroup
		results := make([]recorder, 8)
		for i := range results {
			wg.Go(func() {
				if err := tr.Train(t.Context(), job(s, i), &results[i]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if !bytes.Equal(last(&results[3]), last(whole)) || !slices.Equal(results[3].epochs, whole.epochs) {
			t.Error("seed 3 differs from the run alone")
		}
		if bytes.Equal(last(&results[3]), last(&results[4])) {
			t.Error("seeds 3 and 4 have the same weights")
		}
	})
	t.Run("the same in turns of an epoch or two", func(t *testing.T) {
		var from *search.Checkpoint
		var epochs []search.Epoch
		for _, until := range []int{1, 3, 4} {
			j := job(s, 3)
			j.From, j.Until = from, until
			part := train(t, j)
			epochs = append(epochs, part.epochs...)
			from = &part.checkpoints[len(part.checkpoints)-1]
			if from.Epoch != until {
				t.Errorf("stopped after epoch %d, want %d", from.Epoch, until)
			}
		}
		if !slices.Equal(epochs, whole.epochs) || !bytes.Equal(from.State, last(whole)) {
			t.Error("metrics or weights differ")
		}
	})
	t.Run("the same after an interruption at each epoch", func(t *testing.T) {
		for _, c := range whole.checkpoints {
			j := job(s, 3)
			j.From = &c
			rest := train(t, j)
			if !slices.Equal(rest.epochs, whole.epochs[c.Epoch:]) {
				t.Errorf("resumed after epoch %d: metrics differ", c.Epoch)
			}
			if len(rest.checkpoints) > 0 && !bytes.Equal(last(rest), last(whole)) {
				t.Errorf("resumed after epoch %d: weights differ", c.Epoch)
			}
		}
	})
	t.Run("the same with and without evaluations on the way", func(t *testing.T) {
		s := s
		s.EvaluateEvery = s.Epochs
		once := train(t, job(s, 3))
		if !bytes.Equal(last(once), last(whole)) {
			t.Error("weights or statistics differ")
		}
		if a, b := once.epochs[s.Epochs-1], whole.epochs[s.Epochs-1]; a != b {
			t.Errorf("the last epoch is %+v, with evaluations before it %+v", a, b)
		}
		for i, e := range once.epochs[:s.Epochs-1] {
			if w := whole.epochs[i]; e.TrainLoss != w.TrainLoss || e.TestTotal != 0 || w.TestTotal == 0 {
				t.Errorf("epoch %d: %+v and %+v", i+1, e, w)
			}
		}
	})
}

// TestSplitPerSeed: a trial trains on the split of its seed. Its results are those of a study whose split_seed is larger by
// the seed, in every bit.
func TestSplitPerSeed(t *testing.T) {
	one, per := tiny(t), tiny(t)
	one.TestPictures, per.TestPictures = 0, 0
	one.SplitSeed, per.SplitPerSeed = 2, true
	want, got := train(t, job(one, 2)), train(t, job(per, 2))
	for i, e := range got.epochs {
		w := want.epochs[i]
		e.TrainSeconds, e.EvalSeconds, w.TrainSeconds, w.EvalSeconds = 0, 0, 0, 0
		if e != w {
			t.Errorf("epoch %d: %+v, want %+v", i+1, e, w)
		}
	}
	tr := trainer.New(trainer.Options{})
	data, err := tr.Load(t.Context(), per)
	if err != nil {
		t.Fatal(err)
	}
	of, err := tr.Pictures(t.Context(), per, 2)
	if err != nil || of.Sum != data.Sum {
		t.Errorf("the pictures of seed 2 have the sum %s (%v), and the study %s: want one for all seeds", of.Sum, err, data.Sum)
	}
}

func TestAnEvaluationMeasuresTheLoss(t *testing.T) {
	for name, s := range map[string]search.Study{"running": tiny(t), "precise": short(t)} {
		for _, e := range train(t, job(s, 0)).epochs {
			// Ten classes: a network that knows nothing has ln 10 = 2.30.
			if !(e.TestLoss > 0.1 && e.TestLoss < 20 && e.ValidationLoss > 0.1 && e.ValidationLoss < 20) ||
				e.TestLoss == e.ValidationLoss {
				t.Errorf("%s statistics: %+v", name, e)
			}
		}
	}
}

func TestTrainStops(t *testing.T) {
	t.Run("at the next batch when the context is done", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := recorder{onStep: func(epoch, done int) {
			if epoch == 2 && done == 1 {
				cancel()
			}
		}}
		err := trainer.New(trainer.Options{}).Train(ctx, job(tiny(t), 0), &r)
		if !errors.Is(err, context.Canceled) || len(r.epochs) != 1 || r.steps != 3 {
			t.Errorf("%v after %d epochs and %d steps, want context canceled, 1 and 3", err, len(r.epochs), r.steps)
		}
	})
	t.Run("with ErrDiverged at a loss that is not finite", func(t *testing.T) {
		s := tiny(t)
		s.LearningRate = 1e30
		var r recorder
		err := trainer.New(trainer.Options{}).Train(t.Context(), job(s, 0), &r)
		if !errors.Is(err, search.ErrDiverged) || !strings.HasPrefix(err.Error(), "epoch 1, step 2: ") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("when an epoch cannot be stored", func(t *testing.T) {
		r := recorder{fail: errors.New("disk full")}
		if err := trainer.New(trainer.Options{}).Train(t.Context(), job(tiny(t), 0), &r); !errors.Is(err, r.fail) ||
			len(r.epochs) != 1 {
			t.Errorf("%v after %d epochs", err, len(r.epochs))
		}
	})
	t.Run("before it starts if the pictures are others", func(t *testing.T) {
		s := tiny(t)
		s.DataSum = "0123"
		if err := trainer.New(trainer.Options{}).Train(t.Context(), job(s, 0), &recorder{}); err == nil ||
			!strings.Contains(err.Error(), "pictures") {
			t.Errorf("error %v", err)
		}
	})
}

func TestACheckpointOfAnotherTrialIsRefused(t *testing.T) {
	whole := train(t, job(tiny(t), 3))
	good := whole.checkpoints[0]
	for name, c := range map[string]search.Checkpoint{
		"cut off":        {Epoch: 1, State: good.State[:len(good.State)-3]},
		"too long":       {Epoch: 1, State: append(slices.Clone(good.State), 0)},
		"wrong epoch":    {Epoch: 2, State: good.State},
		"not one at all": {Epoch: 1, State: []byte("hello")},
		"empty":          {Epoch: 1},
	} {
		t.Run(name, func(t *testing.T) {
			j := job(tiny(t), 3)
			j.From = &c
			err := trainer.New(trainer.Options{}).Train(t.Context(), j, &recorder{})
			if err == nil || !strings.Contains(err.Error(), "checkpoint of L4M2 seed 3") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTrace(t *testing.T) {
	t.Run("by the paper's protocol", func(t *testing.T) {
		testTrace(t, tiny(t), 2*(9+4)+3*(5+9), nil) // 9 parameters, 4 statistics
	})
	t.Run("with averages and precise statistics", func(t *testing.T) {
		testTrace(t, short(t), 2*(9+4)+3*(6+9)+(9+4)+1, map[string][]int{
			"step/2/average": nil, "evaluated/block1.primary.weight": {6, 2, 3, 3}, "evaluated/bn0.running_var": {6},
			"statistics/images": {2, 16, 3, 16, 16},
		})
	})
}

func testTrace(t *testing.T, s search.Study, arrays int, more map[string][]int) {
	var b bytes.Buffer
	if err := trainer.New(trainer.Options{}).Trace(t.Context(),
		search.Job{Study: s, Key: search.Key{System: space.PairSystem(space.Pair{L: 3, M: 2}), Seed: 1}}, 3,
		&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "trace.npz")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("names and shapes are PyTorch's", func(t *testing.T) {
		f, err := npz.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want := map[string][]int{
			"init/conv0.weight": {6, 3, 3, 3}, "init/bn0.running_mean": {6}, "final/bn0.running_var": {6},
			"init/block1.primary.weight": {6, 2, 3, 3}, "final/block1.secondary.weight": {6, 3, 1, 1},
			"init/block1.bn.weight": {6}, "init/fc.weight": {10, 6}, "final/fc.bias": {10},
			"step/0/images": {16, 3, 16, 16}, "step/2/labels": {16}, "step/1/logits": {16, 10},
			"step/1/loss": nil, "step/2/lr": nil, "step/2/grad/block1.primary.weight": {6, 2, 3, 3},
		}
		maps.Copy(want, more)
		for name, want := range want {
			h := f.Header(name + ".npy")
			if h == nil {
				t.Errorf("%s is missing", name)
			} else if !slices.Equal(h.Descr.Shape, want) {
				t.Errorf("%s has shape %v, want %v", name, h.Descr.Shape, want)
			}
		}
		if len(f.Keys()) != arrays {
			t.Errorf("%d arrays, want %d", len(f.Keys()), arrays)
		}
	})
	t.Run("PyTorch replays it", func(t *testing.T) {
		python := "/usr/bin/python3"
		if exec.Command(python, "-c", "import torch, numpy").Run() != nil {
			t.Skip("python3 with torch and numpy is not installed")
		}
		out, err := exec.Command(python, "testdata/replay_trace.py", path).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		t.Logf("%s", out)
	})
}
