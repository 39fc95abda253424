// Package interchange takes a trained network to other programs: its tensors as the arrays of an npz file or in the
// format safetensors, the network as a PyTorch module, and both together as an ONNX model.
//
// All of them have the same names: those of PyTorch's state_dict, as "block1.primary.weight" (out, in/groups, rows,
// columns). All of them read pictures as (B, C, H, W) float32, normalised as (x/255 − mean)/std by the mean and the
// standard deviation of each channel of the training pictures, which Model.About says.
package interchange

import (
	"encoding/json"
	"fmt"
	"strconv"

	"igcsearch/space"
	"igcsearch/trainer/graph"
)

// Tensor is one array of a trained network, with the name and the shape that PyTorch's state_dict gives it. Data is
// row-major.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// Model is a trained network.
type Model struct {
	Network space.Network
	Plan    space.Plan // that the network was built by
	Tensors []Tensor   // parameters and running statistics, in the order of the layers
	Origin  Origin
}

// Origin says where a network was trained. It may be incomplete: what is empty is not known.
type Origin struct {
	Study, Fingerprint string
	At                 string // the trial's values of the settings of which the study has lists, "learning_rate=0.05"
	Seed, Epoch        int    // Epoch is that after which the tensors were taken
	Dataset            string
	Precision          string    // of the training, as the setting of a study; "" for float32
	Classes            []string  // names, by label
	Mean, Std          []float32 // of each channel of the training pictures, with pixels scaled to 0 … 1
	Version, Commit    string    // of the program that writes the file
}

// About returns what the files of a network say about it beside its tensors. A value is a text, or a number, a list of
// numbers or a list of texts as JSON. What is not known has no key.
func (m Model) About() map[string]string {
	in, o := m.Network.Input(), m.Origin
	about := map[string]string{
		"network": m.Network.Name, "depth": strconv.Itoa(m.Network.Depth), "layout": string(m.Plan.Layout),
		"input": list([]int{in.C, in.H, in.W}), "batch_norm_eps": strconv.FormatFloat(graph.Epsilon, 'g', -1, 64),
		"pytorch": Command(m.Network, m.Plan),
		"study":   o.Study, "at": o.At, "fingerprint": o.Fingerprint, "dataset": o.Dataset, "precision": o.Precision,
		"seed": strconv.Itoa(o.Seed), "epoch": strconv.Itoa(o.Epoch),
		"version": o.Version, "commit": o.Commit,
	}
	for key, value := range about {
		if value == "" {
			delete(about, key)
		}
	}
	if len(o.Classes) > 0 {
		about["classes"] = list(o.Classes)
	}
	if len(o.Mean) > 0 {
		about["mean"], about["std"] = list(o.Mean), list(o.Std)
	}
	return about
}

// list is a list as JSON. A float32 has as many digits as tell it from its neighbours.
func list[T int | float32 | string](values []T) string {
	b, err := json.Marshal(values)
	if err != nil {
		panic(err) // texts and finite numbers always have a JSON form
	}
	return string(b)
}

// Command returns the command that prints the network as a PyTorch module.
func Command(n space.Network, p space.Plan) string {
	return fmt.Sprintf("igcsearch model %s --layout %s --depth %d --classes %d --size %d --pytorch",
		n.Name, p.Layout, n.Depth, n.Classes, n.Input().H)
}

// conv is one convolution of a layer. A product has several, one behind the other.
type conv struct {
	weight          string // the name of its weights
	in, out         int    // channels
	kh, kw, stride  int
	groups          int // partitions
	stepIn, stepOut int // how far the channels of a partition lie apart: see space.Channel
	// branches is the number of convolutions of the same input whose outputs are added. Their kernels lie one behind
	// the other in the weights.
	branches int
	relu     bool // a ReLU follows, before the next convolution of the layer
}

// convs returns the convolutions of a layer of the kind Conv or IGC.
func convs(l space.Layer) []conv {
	names := l.WeightNames()
	list := []conv{{weight: names[0], in: l.In.C, out: l.Out.C, kh: l.KH, kw: l.KW, stride: l.Stride, groups: l.Groups,
		stepIn: l.StepIn, stepOut: l.StepOut, branches: l.Branches, relu: l.Between}}
	for i, m := range l.Mixes {
		list = append(list, conv{weight: names[1+i], in: l.Out.C, out: l.Out.C, kh: 1, kw: 1, stride: 1,
			groups: l.Out.C / m.K, stepIn: m.Step, stepOut: m.Step, branches: 1})
	}
	return list
}
