package trainer_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sbinet/npyio/npz"

	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/interchange"
)

func TestWeightsAreWhatTheAccuracyWasMeasuredWith(t *testing.T) {
	j := job(short(t), 1)
	r := train(t, j)
	var b bytes.Buffer
	if err := trainer.New(trainer.Options{}).Trace(t.Context(), j, 8, &b); err != nil { // 4 epochs of 2 steps
		t.Fatal(err)
	}
	trace, err := npz.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	j.From = &r.checkpoints[len(r.checkpoints)-1]
	m, err := trainer.Weights(j)
	if err != nil {
		t.Fatal(err)
	}
	list := m.Tensors
	for _, w := range list {
		var evaluated, final []float32
		if err := errors.Join(trace.Read("evaluated/"+w.Name+".npy", &evaluated),
			trace.Read("final/"+w.Name+".npy", &final)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.Data, evaluated) || slices.Equal(w.Data, final) {
			t.Errorf("%s is not what an evaluation uses, or is what the training goes on with", w.Name)
		}
	}
}

func byName(list []interchange.Tensor) map[string]interchange.Tensor {
	m := map[string]interchange.Tensor{}
	for _, w := range list {
		m[w.Name] = w
	}
	return m
}

func TestWeights(t *testing.T) {
	j := job(tiny(t), 1)
	r := train(t, j)
	j.From = &r.checkpoints[len(r.checkpoints)-1]
	m, err := trainer.Weights(j)
	if err != nil {
		t.Fatal(err)
	}
	list := m.Tensors
	tensors := byName(list)

	t.Run("have PyTorch's names and shapes", func(t *testing.T) {
		// L4M2, one block, 10 classes: conv2d weights are (out, in/groups, h, w).
		for name, want := range map[string][]int{
			"conv0.weight": {8, 3, 3, 3}, "block1.primary.weight": {8, 2, 3, 3},
			"block1.secondary.weight": {8, 4, 1, 1},
			"fc.weight":               {10, 8}, "fc.bias": {10},
		} {
			if !slices.Equal(tensors[name].Shape, want) {
				t.Errorf("%s: %v, want %v; there are %v", name, tensors[name].Shape, want, names(list))
			}
		}
		stats := 0
		for _, w := range list {
			if strings.HasPrefix(w.Name, "velocity/") {
				t.Errorf("%s is of the optimiser", w.Name)
			}
			if strings.HasSuffix(w.Name, ".running_var") {
				stats++
			}
		}
		if stats != 2 {
			t.Errorf("%d running variances, want 2", stats)
		}
	})

	t.Run("are those that a trace of the whole training ends with", func(t *testing.T) {
		whole := job(tiny(t), 1)
		var b bytes.Buffer
		if err := trainer.New(trainer.Options{}).Trace(t.Context(), whole, 8, &b); err != nil { // 4 epochs of 2 steps
			t.Fatal(err)
		}
		trace, err := npz.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := m.WriteNPZ(&out); err != nil {
			t.Fatal(err)
		}
		file, err := npz.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range list {
			var want, got []float32
			if err := trace.Read("final/"+w.Name+".npy", &want); err != nil {
				t.Fatal(err)
			}
			if err := file.Read(w.Name+".npy", &got); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) || !slices.Equal(file.Header(w.Name+".npy").Descr.Shape, w.Shape) {
				t.Errorf("%s differs", w.Name)
			}
		}
	})
}

func TestWeightsOfADamagedCheckpoint(t *testing.T) {
	j := job(tiny(t), 1)
	r := train(t, j)
	j.From = &r.checkpoints[len(r.checkpoints)-1]
	for name, spoil := range map[string]func(b []byte) []byte{
		"cut off": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":   func([]byte) []byte { return nil },
		"other":   func(b []byte) []byte { b[0]++; return b },
	} {
		bad, c := j, *j.From
		c.State = spoil(bytes.Clone(c.State))
		bad.From = &c
		if m, err := trainer.Weights(bad); err == nil {
			t.Errorf("%s: got %d tensors", name, len(m.Tensors))
		}
	}
	other := j
	other.System = space.PairSystem(space.Pair{L: 2, M: 4})
	if m, err := trainer.Weights(other); err == nil {
		t.Errorf("another pair: got %d tensors", len(m.Tensors))
	}
}

func names(list []interchange.Tensor) (all []string) {
	for _, w := range list {
		all = append(all, w.Name)
	}
	return all
}
