package gpu

import "igcsearch/trainer/graph"

// normState is what the launches so far have computed of a normalisation.
type normState struct {
	scale, shift *buffer
	mean, istd   *buffer
	ca, cb, cc   *buffer
}

func (p *plan) state(n *graph.Norm) *normState {
	s := p.norms[n]
	if s != nil {
		return s
	}
	if p.purpose == evaluating {
		first := p.at(n.Name + meanName)
		s = &normState{scale: p.scales.at(first, n.C, 4), shift: p.shifts.at(first, n.C, 4)}
	} else {
		s = &normState{scale: p.floats(n.Name+" scale", n.C), shift: p.floats(n.Name+" shift", n.C)}
	}
	p.norms[n] = s
	return s
}

// running launches what an evaluation normalises by.
func (p *plan) running() {
	p.scales, p.shifts = p.floats("scales", p.channels), p.floats("shifts", p.channels)
	stats := p.stats
	if p.precise != nil {
		stats = p.precise
	}
	p.launch("norm_running", [3]int{max(ceil(p.channels, 128), 1), 1, 1}, [3]int{128, 1, 1}, 0, &runningArgs{
		c: int32(p.channels), epsilon: graph.Epsilon, affine: p.affine, value: p.tensors.value,
		mean: stats, variance: stats.at(p.channels, p.channels, 4), scale: p.scales, shift: p.shifts, state: p.steps})
}

// counter returns zeros, with which the blocks of a launch learn which of them is
// the last. A kernel leaves them as they were, and no two plans run at once, so
// each plan begins with the first.
func (p *plan) counter(grid [3]int) *buffer {
	b := p.counters.at(p.counted, grid[1], 4)
	p.counted += grid[1]
	p.counters.bytes = max(p.counters.bytes, 4*p.counted)
	return b
}

// forward is a normalisation for the kernel that makes its input; nil: there is
// none, or it does not depend on this batch.
func (p *plan) forward(n *graph.Norm) *normArgs {
	if n == nil || p.purpose == evaluating {
		return nil
	}
	s := p.state(n)
	mean, variance := p.at(n.Name+meanName), p.at(n.Name+varianceName)
	count := float64(p.n * n.Positions)
	a := &normArgs{epsilon: graph.Epsilon, factor: float32(n.Factor), count: count, inverse: 1 / count,
		weight: p.param(n.Name + ".weight"), bias: p.param(n.Name + ".bias"), scale: s.scale, shift: s.shift,
		state: p.steps}
	if p.purpose == measuring {
		a.measured = p.measured.at(3*mean, 3*n.C, 8)
		return a
	}
	s.mean, s.istd = p.doubles(n.Name+" mean", n.C), p.doubles(n.Name+" istd", n.C)
	a.mean, a.istd = s.mean, s.istd
	a.runningMean, a.runningVar = p.stats.at(mean, n.C, 4), p.stats.at(variance, n.C, 4)
	return a
}

// backward is a normalisation for the kernel that makes the gradient of its
// output; nil: there is none.
func (p *plan) backward(n *graph.Norm) *normArgs {
	if n == nil {
		return nil
	}
	s := p.state(n)
	s.ca, s.cb, s.cc = p.floats(n.Name+" ca", n.C), p.floats(n.Name+" cb", n.C), p.floats(n.Name+" cc", n.C)
	count := float64(p.n * n.Positions)
	return &normArgs{count: count, inverse: 1 / count, weight: p.param(n.Name + ".weight"),
		mean: s.mean, istd: s.istd, dweight: p.gradient(n.Name + ".weight"), dbias: p.gradient(n.Name + ".bias"),
		ca: s.ca, cb: s.cb, cc: s.cc}
}
