package graph_test

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"testing"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

var update = flag.Bool("update", false, "write testdata/networks.json; then run testdata/torch_networks.py")

// networks is one of each kind, small: those that finite
// differences judge badly, since a deep network has too many kinks.
var networks = []struct {
	system string
	layout space.Layout
	depth  int
	side   int
	batch  int
}{
	{"IGC-L4M3", space.Stages, 8, 9, 18},
	{"RegConv-W6", space.Stages, 8, 8, 3},
	{"SumFusion", space.Stages, 5, 8, 3},
	{"IGC-L4M2/L2M8/L8M3", space.Stages, 8, 8, 3},
	{"IGC-L4M2+Swap", space.Stages, 5, 8, 3},
	{"IGC-L4M2+Proj", space.Stages, 5, 8, 3},
	{"IGC-L4M2+1x3", space.Stages, 5, 9, 3},
	{"IGC-L4M2+5x5", space.Stages, 5, 8, 3},
	{"IGC-L4M2+ReLU", space.Stages, 5, 8, 3},
	{"IGC-L4M4+B2", space.Stages, 5, 8, 3},
	{"IGC-L4M2+Ident.", space.Flat, 6, 6, 3},
	{"IGC-L4M2+Ident.", space.Stages, 14, 8, 18},
	{"IGC-L4M2+Ident.+B2", space.Stages, 8, 8, 3},
	{"IGC-L4M2+Ident.+ReLU", space.Stages, 8, 8, 18},
	{"IGC-L4M2+Ident.+5x5", space.Stages, 8, 8, 3},
	{"IGC-L4M2+Ident.+1x3", space.Stages, 8, 9, 3},
	{"IGC-L4M2+Ident.+Swap", space.Stages, 8, 8, 3},
	{"RegConv-W6+Ident.", space.Stages, 8, 9, 3},
	{"ResNet-C6", space.ImageNet, 18, 33, 3},
	{"IGC-L4M2+Ident.", space.ImageNet, 10, 40, 17},
	{"IGC-L4M2+Ident.+2L", space.ImageNet, 10, 48, 17},
	{"IGC-L4M3+1x1", space.Flat, 4, 8, 3},
	{"IGCV2-M1K2K3K2", space.Flat, 5, 8, 18},
	{"IGCV2-M4K2K3", space.Stages, 8, 9, 3},
	{"IGCV2-M2K2K2+Ident.", space.Stages, 8, 8, 3},
	{"IGCV3-W4R3G2", space.Flat, 5, 8, 18},
	{"IGCV3-W4R2G2x4", space.Stages, 8, 9, 3},
	{"Monarch-M3", space.Stages, 5, 8, 3},
	{"RegNetX-W6G2", space.Flat, 4, 8, 18},
	{"RegNetX-W8G4", space.Stages, 8, 9, 18},
	{"ShuffleNet-W24G3", space.Flat, 4, 8, 18},
	{"ShuffleNet-W16G2", space.Stages, 8, 9, 3},
}

const networkClasses = 3

// networkPlan is that of the networks, for pictures of the given side.
func networkPlan(layout space.Layout, depth, side int) space.Plan {
	return space.Plan{Layout: layout, Depth: depth, In: space.Shape{C: 3, H: side, W: side}, Classes: networkClasses}
}

func networkName(system string, layout space.Layout) string { return system + " " + string(layout) }

// layerJSON is a layer as the script reads it.
type layerJSON struct {
	Name     string     `json:"name"`
	Kind     space.Kind `json:"kind"`
	From     int        `json:"from"`
	Shortcut int        `json:"shortcut"`
	In       shapeJSON  `json:"in"`
	Out      shapeJSON  `json:"out"`
	KH       int        `json:"kh"`
	KW       int        `json:"kw"`
	Stride   int        `json:"stride"`
	Groups   int        `json:"groups"`
	StepIn   int        `json:"step_in"`
	StepOut  int        `json:"step_out"`
	Mixes    [][2]int   `json:"mixes"` // K and step of each
	Between  bool       `json:"between"`
	Branches int        `json:"branches"`
	Norm     bool       `json:"norm"`
	ReLU     bool       `json:"relu"`
}

type shapeJSON struct {
	C int `json:"c"`
	H int `json:"h"`
	W int `json:"w"`
}

func writeNetworks(t *testing.T) {
	type network struct {
		Batch   int         `json:"batch"`
		Classes int         `json:"classes"`
		Layers  []layerJSON `json:"layers"`
	}
	all := map[string]network{}
	for _, c := range networks {
		m := newSystem(t, c.system, networkPlan(c.layout, c.depth, c.side), c.batch, graph.Options{Threads: 1})
		n := network{Batch: c.batch, Classes: networkClasses}
		for _, l := range m.Net.Layers {
			var mixes [][2]int
			for _, m := range l.Mixes {
				mixes = append(mixes, [2]int{m.K, m.Step})
			}
			n.Layers = append(n.Layers, layerJSON{l.Name, l.Kind, l.From, l.Shortcut, shapeJSON(l.In), shapeJSON(l.Out),
				l.KH, l.KW, l.Stride, l.Groups, l.StepIn, l.StepOut, mixes, l.Between, l.Branches, l.Norm, l.ReLU})
		}
		all[networkName(c.system, c.layout)] = n
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/networks.json", append(text, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestNetworksAgreeWithPyTorch holds three training steps of every kind of
// network, losses, first gradients and evaluation, to values recorded in float64
// (testdata/torch_networks.py, PyTorch 1.13.1, CPU).
func TestNetworksAgreeWithPyTorch(t *testing.T) {
	if *update {
		writeNetworks(t)
	}
	var want struct {
		Networks map[string]struct {
			Losses     []float64
			Evaluation float64
			Gradients  map[string][2]float64 // length, and product with a vector
		}
	}
	raw, err := os.ReadFile("testdata/torch_networks.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	for _, isa := range kernel.Available() {
		for _, c := range networks {
			name := networkName(c.system, c.layout)
			t.Run(isa.String()+"/"+name, func(t *testing.T) {
				want, ok := want.Networks[name]
				if !ok {
					t.Fatal("not recorded: go test ./trainer/graph -update, then testdata/torch_networks.py")
				}
				m := newSystem(t, c.system, networkPlan(c.layout, c.depth, c.side), c.batch,
					graph.Options{ISA: isa, Threads: 2, DecayAll: true})
				fill(m, names(m))
				labels := make([]int, c.batch)
				for s, wantLoss := range want.Losses {
					for i := range labels {
						labels[i] = (s + i*i) % networkClasses
					}
					feed(m, formula(100+s, c.batch*3*c.side*c.side), labels)
					loss := step(t, m)
					if math.Abs(loss-wantLoss) > 1e-4*wantLoss {
						t.Errorf("loss of step %d = %.7f, PyTorch has %.7f", s, loss, wantLoss)
					}
					if s == 0 {
						if len(want.Gradients) != len(m.Params) {
							t.Errorf("%d parameters, PyTorch has %d", len(m.Params), len(want.Gradients))
						}
						for _, p := range m.Params {
							var sq, dot float64
							for i, v := range formula(999, len(p.Grad)) {
								sq += float64(p.Grad[i]) * float64(p.Grad[i])
								dot += float64(p.Grad[i]) * float64(v)
							}
							w := want.Gradients[p.Name]
							// A shift that the next norm takes away has no gradient but rounding errors.
							length, tolerance := math.Sqrt(sq), 1e-4*w[0]+1e-6
							if math.Abs(length-w[0]) > tolerance || math.Abs(dot-w[1]) > tolerance {
								t.Errorf("gradient of %s: length %.6g, product %.6g; PyTorch has %.6g, %.6g",
									p.Name, length, dot, w[0], w[1])
							}
						}
					}
					m.Update(graph.Rates{Learning: 0.05}, 0.9, 0.01)
				}
				loss, err := m.Evaluate()
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(loss-want.Evaluation) > 1e-3*want.Evaluation {
					t.Errorf("evaluation loss = %.7f, PyTorch has %.7f", loss, want.Evaluation)
				}
			})
		}
	}
}

// TestEveryVariantIsTrained takes steps of every variant in every layout, with and
// without identity mappings: the layers that make a variant up can be trained in
// any order, and the loss of the same batch falls.
func TestEveryVariantIsTrained(t *testing.T) {
	const side, batch = 9, 6
	labels, pictures := []int{0, 1, 2, 0, 1, 2}, formula(1, batch*3*side*side)
	for i := range pictures { // classes of other brightness
		pictures[i] += float32(labels[i/(3*side*side)])
	}
	for _, v := range append([]space.Variant{space.Bottleneck(2)}, space.Variants...) {
		for _, c := range []struct {
			layout          space.Layout
			depth           int
			ident, doublesL bool
		}{
			{space.Flat, 4, false, false}, {space.Flat, 4, true, false},
			{space.Stages, 5, false, true}, {space.Stages, 8, true, false},
			{space.ImageNet, 10, true, false}, {space.ImageNet, 10, true, true},
		} {
			s := space.System{Family: space.FamilyIGC, Variant: v, Ident: c.ident, DoublesL: c.doublesL,
				Stages: [4]space.Pair{{L: 3, M: 4}}}
			t.Run(networkName(s.String(), c.layout), func(t *testing.T) {
				m := newSystem(t, s.String(), networkPlan(c.layout, c.depth, side), batch, graph.Options{Threads: 1})
				fill(m, names(m))
				feed(m, pictures, labels)
				first := step(t, m)
				last := first
				for range 30 {
					for _, p := range m.Params {
						for i, g := range p.Grad {
							p.Value[i] -= 0.05 * g
						}
					}
					last = step(t, m)
				}
				if !(last < 0.9*first) {
					t.Errorf("the loss is %g, and after 30 steps %g", first, last)
				}
			})
		}
	}
}
