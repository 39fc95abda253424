package gpu

import (
	"strings"

	"igcsearch/trainer/graph"
)

// tensors are the memory that all plans of a model share: parameters with their
// momentum and gradients, and statistics, each in one piece.
type tensors struct {
	value, velocity, grad *buffer
	average               *buffer        // of value; nil without Options.Average
	stats                 *buffer        // running: all means, then all variances
	channels              int            // of all normalisations
	precise               *buffer        // as stats; nil without Options.Precise
	measured              *buffer        // (channels, 3), float64: the sums for precise
	affine                *buffer        // of affines
	affines               []affine       // of all channels, in the order of stats
	counters              *buffer        // as in normArgs, one after the other for all launches of a plan
	place                 map[string]int // of a parameter or statistic in its piece
	length                map[string]int // of a parameter
	params                []graph.Param
}

func newTensors(m *graph.Model) *tensors {
	t := &tensors{place: map[string]int{}, length: map[string]int{}, params: m.Params}
	n := 0
	for _, p := range m.Params {
		t.place[p.Name], t.length[p.Name] = n, len(p.Value)
		n += len(p.Value)
	}
	floats := func(name string, n int) *buffer { return kept(name, 4*n) }
	t.value, t.velocity, t.grad = floats("value", n), floats("velocity", n), floats("grad", n)
	if m.Params[0].Average != nil {
		t.average = floats("average", n)
	}
	n = 0
	for _, kind := range []string{meanName, varianceName} {
		t.channels = n
		for _, s := range m.Stats {
			if name, ok := strings.CutSuffix(s.Name, kind); ok {
				t.place[s.Name] = n
				n += len(s.Value)
				if kind == meanName {
					t.addAffines(name, len(s.Value))
				}
			}
		}
	}
	t.stats = floats("stats", max(n, 1))
	t.affine, t.counters = kept("affine", len(bytesOf(t.affines))), kept("counters", 0)
	if m.Precise != nil {
		t.precise, t.measured = floats("precise", n), kept("measured", 8*3*t.channels)
	}
	return t
}

// addAffines tells where the parameters of a normalisation of c channels are.
func (t *tensors) addAffines(name string, c int) {
	weight, bias := t.at(name+".weight"), t.at(name+".bias")
	for i := range c {
		t.affines = append(t.affines, affine{weight: int32(weight + i), bias: int32(bias + i)})
	}
}

// The names of a normalisation's statistics are its own name with these endings.
const meanName, varianceName = ".running_mean", ".running_var"

func (t *tensors) kept() []*buffer {
	list := []*buffer{t.value, t.velocity, t.grad, t.stats, t.affine, t.counters}
	for _, b := range []*buffer{t.average, t.precise, t.measured} {
		if b != nil {
			list = append(list, b)
		}
	}
	return list
}

// exchange swaps value and average.
func (t *tensors) exchange() launch {
	n := t.value.bytes / 4
	return launch{kernel: "exchange", grid: [3]int{ceil(n, 256), 1, 1}, block: [3]int{256, 1, 1},
		args: &exchangeArgs{len: int64(n), a: t.value, b: t.average}}
}

// makePrecise computes the precise statistics from the measured sums.
func (t *tensors) makePrecise() launch {
	mean, variance := t.precise, t.precise.at(t.channels, t.channels, 4)
	return launch{kernel: "norm_measured", grid: [3]int{ceil(t.channels, 128), 1, 1}, block: [3]int{128, 1, 1},
		args: &measuredArgs{c: int32(t.channels), measured: t.measured, mean: mean, variance: variance}}
}

func (t *tensors) param(name string) *buffer    { return t.value.at(t.at(name), t.length[name], 4) }
func (t *tensors) gradient(name string) *buffer { return t.grad.at(t.at(name), t.length[name], 4) }

func (t *tensors) at(name string) int {
	i, ok := t.place[name]
	if !ok {
		panic("gpu: no tensor " + name)
	}
	return i
}

// segment makes the update take the gradients of n values of a parameter from the
// sums of parts, or from grad if there are no parts.
func (p *plan) segment(name string, from, n, part, stride, parts int) {
	var decays int32
	for _, q := range p.params {
		if q.Name == name {
			decays = flag(q.Decays)
		}
	}
	const most = 256
	for i := 0; i < n; i += most {
		s := segment{from: int64(p.at(name) + from + i), len: int32(min(most, n-i)), decays: decays,
			part: -1, stride: int32(stride), parts: int32(parts)}
		if parts > 0 {
			s.part = int64(part + i)
		}
		p.segments = append(p.segments, s)
	}
}

// update ends a training step: it changes all parameters, by their parts or by
// grad.
func (p *plan) update(momentum, decay float32, segments, rates *buffer) {
	done := map[int64]bool{}
	for _, s := range p.segments {
		done[s.from] = true
	}
	for _, q := range p.params {
		if !done[int64(p.at(q.Name))] {
			p.segment(q.Name, 0, len(q.Value), 0, 0, 0)
		}
	}
	segments.bytes = len(bytesOf(p.segments))
	p.joined = len(p.launches)
	p.launch("update", [3]int{len(p.segments), 1, 1}, [3]int{256, 1, 1}, 0, &updateArgs{
		momentum: momentum, decay: decay, segments: segments, parts: p.partsBuffer, rates: rates, state: p.steps,
		value: p.tensors.value, velocity: p.velocity, average: p.average, grad: p.grad})
}
