package trainer_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sbinet/npyio/npz"

	"igcsearch/space"
	"igcsearch/trainer"
)

// readSafetensors reads as the format's description says, without the writer's
// code.
func readSafetensors(t *testing.T, b []byte) (shapes map[string][]int, values map[string][]float32,
	about map[string]string) {
	t.Helper()
	n := binary.LittleEndian.Uint64(b)
	if (8+n)%8 != 0 {
		t.Errorf("the values start at byte %d, which is not aligned", 8+n)
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(header["__metadata__"], &about); err != nil {
		t.Fatal(err)
	}
	delete(header, "__metadata__")
	data := b[8+n:]
	covered := 0
	shapes, values = map[string][]int{}, map[string][]float32{}
	for name, raw := range header {
		var place struct {
			Type    string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &place); err != nil || place.Type != "F32" {
			t.Fatalf("%s: %s: %v", name, raw, err)
		}
		for at := place.Offsets[0]; at < place.Offsets[1]; at += 4 {
			values[name] = append(values[name], math.Float32frombits(binary.LittleEndian.Uint32(data[at:])))
		}
		shapes[name] = place.Shape
		covered += place.Offsets[1] - place.Offsets[0]
	}
	if covered != len(data) {
		t.Errorf("the header places %d of %d bytes", covered, len(data))
	}
	return shapes, values, about
}

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
	list, err := trainer.Weights(j)
	if err != nil {
		t.Fatal(err)
	}
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

func byName(list []trainer.Tensor) map[string]trainer.Tensor {
	m := map[string]trainer.Tensor{}
	for _, w := range list {
		m[w.Name] = w
	}
	return m
}

func TestWeights(t *testing.T) {
	j := job(tiny(t), 1)
	r := train(t, j)
	j.From = &r.checkpoints[len(r.checkpoints)-1]
	list, err := trainer.Weights(j)
	if err != nil {
		t.Fatal(err)
	}
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
		if err := trainer.WriteNPZ(&out, list); err != nil {
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

func TestWeightsInFiles(t *testing.T) {
	j := job(tiny(t), 1)
	r := train(t, j)
	j.From = &r.checkpoints[len(r.checkpoints)-1]
	list, err := trainer.Weights(j)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("read back from safetensors", func(t *testing.T) {
		var a, b bytes.Buffer
		for _, w := range []*bytes.Buffer{&a, &b} {
			if err := trainer.WriteSafetensors(w, list, map[string]string{"study": "tiny", "seed": "1"}); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Error("twice the same gives other bytes")
		}
		shapes, values, about := readSafetensors(t, a.Bytes())
		if len(shapes) != len(list) || about["study"] != "tiny" || about["seed"] != "1" {
			t.Errorf("%d tensors of %d, %v", len(shapes), len(list), about)
		}
		for _, w := range list {
			if !slices.Equal(shapes[w.Name], w.Shape) || !slices.Equal(values[w.Name], w.Data) {
				t.Errorf("%s differs", w.Name)
			}
		}
	})

	t.Run("of a damaged checkpoint, or of another trial, are refused", func(t *testing.T) {
		for name, spoil := range map[string]func(b []byte) []byte{
			"cut off": func(b []byte) []byte { return b[:len(b)/2] },
			"empty":   func([]byte) []byte { return nil },
			"other":   func(b []byte) []byte { b[0]++; return b },
		} {
			bad, c := j, *j.From
			c.State = spoil(bytes.Clone(c.State))
			bad.From = &c
			if list, err := trainer.Weights(bad); err == nil {
				t.Errorf("%s: got %d tensors", name, len(list))
			}
		}
		other := j
		other.System = space.PairSystem(space.Pair{L: 2, M: 4})
		if list, err := trainer.Weights(other); err == nil {
			t.Errorf("another pair: got %d tensors", len(list))
		}
	})
}

func names(list []trainer.Tensor) (all []string) {
	for _, w := range list {
		all = append(all, w.Name)
	}
	return all
}
