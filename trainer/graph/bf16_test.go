package graph_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// bf16Networks are the networks, and one of pictures so small that the gradient of the
// pool has as many floats as an activation. Each function makes a model for a batch.
func bf16Networks() map[string]func(t *testing.T, batch int, o graph.Options) *graph.Model {
	all := map[string]func(t *testing.T, batch int, o graph.Options) *graph.Model{
		"pictures of two pixels": func(t *testing.T, batch int, o graph.Options) *graph.Model {
			return newSystem(t, "IGC-L4M2+Ident.", space.Plan{Layout: space.Flat, Depth: 6,
				In: space.Shape{C: 3, H: 1, W: 2}, Classes: networkClasses}, batch, o)
		},
	}
	for _, c := range networks {
		all[networkName(c.system, c.layout)] = func(t *testing.T, batch int, o graph.Options) *graph.Model {
			return newSystem(t, c.system, networkPlan(c.layout, c.depth, c.side), batch, o)
		}
	}
	return all
}

// trainThree trains three steps, and then evaluates by precise statistics. It
// returns all numbers that a training records, and the first gradients.
func trainThree(t *testing.T, m *graph.Model, batch int) (losses []float64, grads, tensors []float32) {
	t.Helper()
	fill(m, names(m))
	in := m.Net.Input()
	labels := make([]int, batch)
	for s := range 3 {
		for i := range labels {
			labels[i] = (s + i*i) % networkClasses
		}
		feed(m, formula(100+s, batch*in.C*in.H*in.W), labels)
		losses = append(losses, step(t, m))
		if s == 0 {
			for _, p := range m.Params {
				grads = append(grads, p.Grad...)
			}
		}
		m.Update(graph.Rates{Learning: 0.05, Average: 0.5}, 0.9, 0.01)
		if err := m.Measure(); err != nil {
			t.Fatal(err)
		}
	}
	m.Measured()
	loss, err := m.Evaluate()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Params {
		tensors = append(append(append(tensors, p.Value...), p.Velocity...), p.Average...)
	}
	for _, s := range append(slices.Clone(m.Stats), m.Precise...) {
		tensors = append(tensors, s.Value...)
	}
	return append(losses, loss), grads, tensors
}

// stepAndEvaluate returns the loss and the gradients of a step, and the loss of an
// evaluation by the statistics of its pictures.
func stepAndEvaluate(t *testing.T, m *graph.Model, batch int) (losses []float64, grads []float32) {
	t.Helper()
	fill(m, names(m))
	in := m.Net.Input()
	labels := make([]int, batch)
	for i := range labels {
		labels[i] = i * i % networkClasses
	}
	feed(m, formula(100, batch*in.C*in.H*in.W), labels)
	loss := step(t, m)
	for _, p := range m.Params {
		grads = append(grads, p.Grad...)
	}
	if err := m.Measure(); err != nil {
		t.Fatal(err)
	}
	m.Measured()
	evaluation, err := m.Evaluate()
	if err != nil {
		t.Fatal(err)
	}
	return []float64{loss, evaluation}, grads
}

// bits is a checksum of what trainThree returns.
func bits(losses []float64, grads, tensors []float32) string {
	h := fnv.New64a()
	for _, v := range losses {
		h.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(v)))
	}
	for _, v := range append(slices.Clone(grads), tensors...) {
		h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// bfloat16s are the precisions that store and multiply bfloat16.
var bfloat16s = []kernel.Precision{kernel.BF16, kernel.AMX}

// TestBF16HasTheSameBitsEverywhere trains each kind of network in bfloat16 with
// every instruction set of this machine, with and without the instruction that
// multiplies bfloat16, and on one and three threads. The bits are recorded, so
// that those of another machine are compared with them.
func TestBF16HasTheSameBitsEverywhere(t *testing.T) {
	for _, p := range bfloat16s {
		t.Run(p.String(), func(t *testing.T) { testSameBits(t, p, "testdata/"+p.String()+".json") })
	}
}

// testSameBits compares the bits of a precision with those in a file.
func testSameBits(t *testing.T, p kernel.Precision, path string) {
	const batch = 18 // two blocks, one of them not full
	recorded := map[string]string{}
	if text, err := os.ReadFile(path); err != nil && !*update {
		t.Fatal(err)
	} else if err == nil && !*update {
		if err := json.Unmarshal(text, &recorded); err != nil {
			t.Fatal(err)
		}
	}
	for name, network := range bf16Networks() {
		t.Run(name, func(t *testing.T) {
			type how struct {
				isa     kernel.ISA
				threads int
				emulate bool
			}
			all := []how{{kernel.Available()[0], 1, false}}
			for _, isa := range kernel.Available() {
				all = append(all, how{isa, 3, true})
			}
			for _, h := range all {
				m := network(t, batch, graph.Options{ISA: h.isa, Threads: h.threads, Precision: p, Average: true, Precise: true})
				if h.emulate {
					m.Team().Emulate(kernel.BF16)
				}
				got := bits(trainThree(t, m, batch))
				if *update && recorded[name] == "" {
					recorded[name] = got
				}
				if got != recorded[name] {
					t.Errorf("%+v: the bits have the sum %s, want %s", h, got, recorded[name])
				}
			}
		})
	}
	if *update {
		text, err := json.MarshalIndent(recorded, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBF16IsNearFloat32 holds the loss, the gradients and the loss of an evaluation to
// those of float32, which other tests hold to PyTorch's. There is no update between,
// after which these networks would drift apart. Where a rounding moves a value across
// a kink, gradients differ more than losses.
func TestBF16IsNearFloat32(t *testing.T) {
	const batch = 64
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for name, network := range bf16Networks() {
		t.Run(name, func(t *testing.T) {
			train := func(p kernel.Precision) ([]float64, []float32) {
				m := network(t, batch, graph.Options{ISA: isa, Threads: 1, Precision: p, Precise: true})
				return stepAndEvaluate(t, m, batch)
			}
			losses, grads := train(kernel.F32)
			for _, p := range bfloat16s {
				gotLosses, gotGrads := train(p)
				for s, want := range losses {
					if got := gotLosses[s]; !(math.Abs(got-want) <= 0.01*want) {
						t.Errorf("%v: loss %d is %.4f, in float32 %.4f", p, s, got, want)
					}
				}
				var dot, a, b float64
				for i, x := range grads {
					y := float64(gotGrads[i])
					dot, a, b = dot+float64(x)*y, a+float64(x)*float64(x), b+y*y
				}
				if cosine := dot / math.Sqrt(a*b); !(cosine > 0.9) || !(math.Abs(b/a-1) < 0.15) {
					t.Errorf("%v: the gradients have the cosine %.4f, and lengths %.4g and in float32 %.4g", p, cosine,
						math.Sqrt(b), math.Sqrt(a))
				}
			}
		})
	}
}

// TestBF16HalvesTheMemory of activations and of their gradients: all that a step reads
// and writes but the pictures.
func TestBF16HalvesTheMemory(t *testing.T) {
	bytes := map[kernel.Precision]int{}
	for _, p := range append([]kernel.Precision{kernel.F32}, bfloat16s...) {
		m := newModel(t, space.Pair{L: 4, M: 4}, 2, 8, networkClasses, 16, graph.Options{Threads: 1, Precision: p})
		bytes[p] = m.StepBytes() - 2*4*16*3*8*8 // the first convolution reads the pictures in both directions
		bytes[p] -= 4 * 16 * 16                 // the last one reads the gradient of the pool
	}
	for _, p := range bfloat16s {
		if bytes[p]*2 != bytes[kernel.F32] {
			t.Errorf("%v: %d bytes, in float32 %d", p, bytes[p], bytes[kernel.F32])
		}
	}
}

func TestTheTapeHasNoBF16(t *testing.T) {
	net := space.Figure3(space.Pair{L: 2, M: 2}, 1, space.Shape{C: 3, H: 4, W: 4}, 3)
	for _, p := range bfloat16s {
		_, err := graph.New(net, 1, graph.Options{Threads: 1, Executor: graph.Tape, Precision: p})
		if err == nil || !strings.HasSuffix(err.Error(), "in float32, and not in "+p.String()) {
			t.Errorf("error %v", err)
		}
	}
}
