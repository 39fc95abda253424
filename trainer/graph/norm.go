package graph

import (
	"math"
	"slices"

	"igcsearch/space"
	"igcsearch/trainer/kernel"
)

// Epsilon is added to the variance, as in the code of the paper's authors.
const Epsilon = 2e-5

// RunningFactor is the share of the former running statistics in those after a step of a network, as in the code of the
// paper's authors: running = 0.99·running + 0.01·batch, and with identity mappings 0.9·running + 0.1·batch.
func RunningFactor(n space.Network) float64 {
	if slices.ContainsFunc(n.Layers, func(l space.Layer) bool { return l.Kind == space.Add }) {
		return 0.9
	}
	return 0.99
}

// norm is one batch normalisation. It has no op of its own: the op that computes
// z writes the sums of z here, and the op that reads z normalises while it reads.
// Backward it is the other way round. So z crosses memory once in each direction.
type norm struct {
	*Norm
	b        *batch
	training bool

	runningMean, runningVar []float32 // (C); in the evaluation graph those that it normalises by

	// For Model.Measure: the sums since the last Measured, and its result.
	measuredSum, measuredSumSq []float64 // (C)
	measuredCount              float64   // values of a channel
	preciseMean, preciseVar    []float32 // (C)

	sum, sumSq  []float64 // (B, C): of z, from the op that computes it
	gsum, gxsum []float64 // (B, C): of g and g·z, from the gradient of the op that reads z

	mean, istd   []float64 // (C): istd is 1/sqrt(var + Epsilon)
	scale, shift []float32 // (C): normalised z = scale·z + shift
	weight       []float32 // (C): of the last forward

	dWeight, dBias []float32 // (C)
	ca, cb, cc     []float32 // (C): dz = ca·g + cb·z + cc
}

func newNorm(d *Norm, a *kernel.Arena, b *batch) *norm {
	c := d.C
	n := &norm{Norm: d, b: b, training: true,
		runningMean: a.Floats(c), runningVar: a.Floats(c),
		sum: a.Doubles(b.blocks * c), sumSq: a.Doubles(b.blocks * c),
		gsum: a.Doubles(b.blocks * c), gxsum: a.Doubles(b.blocks * c),
		mean: a.Doubles(c), istd: a.Doubles(c), scale: a.Floats(c), shift: a.Floats(c),
		dWeight: a.Floats(c), dBias: a.Floats(c), ca: a.Floats(c), cb: a.Floats(c), cc: a.Floats(c)}
	for i := range n.runningVar {
		n.runningVar[i] = 1
	}
	return n
}

// evaluation returns a norm that normalises by the given statistics.
func (n *norm) evaluation(a *kernel.Arena, mean, variance []float32) *norm {
	return &norm{Norm: n.Norm, b: n.b,
		runningMean: mean, runningVar: variance, scale: a.Floats(n.C), shift: a.Floats(n.C)}
}

// precise adds the memory for precise statistics and returns them.
func (n *norm) precise(a *kernel.Arena) (mean, variance []float32) {
	n.measuredSum, n.measuredSumSq = a.Doubles(n.C), a.Doubles(n.C)
	n.preciseMean, n.preciseVar = a.Floats(n.C), a.Floats(n.C)
	for i := range n.preciseVar {
		n.preciseVar[i] = 1
	}
	return n.preciseMean, n.preciseVar
}

// measured computes the precise statistics from the sums of all measured batches.
// The variance is unbiased, as in the running statistics.
func (n *norm) measured() {
	for c := range n.C {
		mean := n.measuredSum[c] / n.measuredCount
		variance := max(0, n.measuredSumSq[c]/n.measuredCount-float64(mean*mean))
		n.preciseMean[c], n.preciseVar[c] = float32(mean), float32(unbiased(variance, n.measuredCount))
		n.measuredSum[c], n.measuredSumSq[c] = 0, 0
	}
	n.measuredCount = 0
}

// unbiased estimates the variance of a population from that of a sample of count
// values.
func unbiased(variance, count float64) float64 { return variance * count / math.Max(count-1, 1) }

// total sums channel c over the blocks in use, in their order.
func (n *norm) total(s []float64, c int) float64 {
	t := 0.0
	for b := range n.b.used() {
		t += s[b*n.C+c]
	}
	return t
}

// forward computes scale and shift from the statistics. In training it also
// updates the running statistics, or adds to the sums of the precise ones. As in
// PyTorch, the running variance is unbiased: n/(n−1) times the variance that
// normalises. The conversions of products prevent fused multiply–adds, which only
// some processors have.
func (n *norm) forward(weight, bias []float32) {
	n.weight = weight
	count := float64(n.b.n * n.Positions)
	if n.training && n.b.measuring {
		n.measuredCount += count
	}
	for c := range n.C {
		mean, variance := float64(n.runningMean[c]), float64(n.runningVar[c])
		if n.training {
			sum, sumSq := n.total(n.sum, c), n.total(n.sumSq, c)
			mean = sum / count
			variance = sumSq/count - float64(mean*mean)
			if variance < 0 { // by rounding, where all values are equal
				variance = 0
			}
			if n.b.measuring {
				n.measuredSum[c] += sum
				n.measuredSumSq[c] += sumSq
			} else {
				n.average(n.runningMean, c, mean)
				n.average(n.runningVar, c, unbiased(variance, count))
			}
			n.mean[c], n.istd[c] = mean, 1/math.Sqrt(variance+Epsilon)
		}
		scale := float64(weight[c]) / math.Sqrt(variance+Epsilon)
		n.scale[c], n.shift[c] = float32(scale), float32(float64(bias[c])-float64(mean*scale))
	}
}

// average moves a running statistic of channel c towards that of the batch.
func (n *norm) average(running []float32, c int, batch float64) {
	running[c] = float32(float64(n.Factor*float64(running[c])) + float64((1-n.Factor)*batch))
}

// backward computes the gradients of weight and bias and the coefficients of
// dz, with ẑ = (z − mean)·istd and N positions of the batch:
//
//	dbias = Σg, dweight = Σ g·ẑ
//	dz = weight·istd·(g − dbias/N − ẑ·dweight/N)
func (n *norm) backward() {
	count := float64(n.b.n * n.Positions)
	for c := range n.C {
		g, gz := n.total(n.gsum, c), n.total(n.gxsum, c)
		dw := n.istd[c] * (gz - float64(n.mean[c]*g))
		n.dWeight[c], n.dBias[c] = float32(dw), float32(g)
		ca := float64(n.weight[c]) * n.istd[c]
		cb := -ca * n.istd[c] * dw / count
		n.ca[c], n.cb[c], n.cc[c] = float32(ca), float32(cb), float32(-ca*g/count-float64(cb*n.mean[c]))
	}
}
