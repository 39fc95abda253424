package kernel_test

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"igcsearch/trainer/kernel"
)

// TestCrossEntropyHasTheSameBitsEverywhere: with BF16 and AMX the loss and its gradient
// come from exp and log of our own. They are near those of float32, which are the C
// library's, and their bits are recorded. So are those of the update.
func TestCrossEntropyHasTheSameBitsEverywhere(t *testing.T) {
	for _, p := range bf16Precisions {
		t.Run(p.String(), func(t *testing.T) { testCrossEntropyBits(t, p) })
	}
}

func testCrossEntropyBits(t *testing.T, of kernel.Precision) {
	var arena kernel.Arena
	t.Cleanup(arena.Free)
	team := newTeam(t, &arena, kernel.Portable, 1, 0)
	var pcg rand.PCG
	pcg.Seed(1, 2)
	uniform := func() float32 { return float32(pcg.Uint64()>>40) / (1 << 24) }
	sum := fnv.New64a()
	const k = 100
	call := func(p kernel.Precision, logits, labels []float32) kernel.Head {
		h := kernel.Head{Precision: p, H: 1, W: 1, C: 1, K: k, Valid: 16, Logits: logits, Labels: labels, Gain: 1. / 16,
			Loss: arena.Doubles(16), DLogits: arena.Floats(k * 16)}
		team.CrossEntropy([]kernel.Head{h})
		return h
	}
	for round := range 20 {
		logits, labels := arena.Floats(k*16), arena.Floats(16)
		for i := range logits {
			logits[i] = float32(round*round) * (uniform() - 0.5) // exp is 0 for some of the last
		}
		for i := range labels {
			labels[i] = float32(pcg.Uint64() % k)
		}
		want, got := call(kernel.F32, logits, labels), call(of, logits, labels)
		for i, loss := range got.Loss {
			if !(math.Abs(loss-want.Loss[i]) <= 1e-14*(1+want.Loss[i])) {
				t.Errorf("round %d: loss %v, in float32 %v", round, loss, want.Loss[i])
			}
			sum.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(loss)))
		}
		for i, d := range got.DLogits {
			if !(math.Abs(float64(d-want.DLogits[i])) <= 2e-7*math.Abs(float64(want.DLogits[i]))) {
				t.Errorf("round %d: gradient %v, in float32 %v", round, d, want.DLogits[i])
			}
			sum.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(d)))
		}
		v := arena.Floats(len(logits))
		for range 3 {
			kernel.Nesterov(logits, v, got.DLogits, 0.1, 0.9, 1e-4)
		}
		for _, w := range logits {
			sum.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(w)))
		}
	}
	if got, want := sum.Sum64(), uint64(0xffe54fbb2dbe40d7); got != want {
		t.Errorf("the bits have the sum %#x, want %#x", got, want)
	}
	logits, labels := arena.Floats(k*16), arena.Floats(16)
	logits[1*16+0], logits[1*16+1] = float32(math.Inf(-1)), float32(math.NaN())
	h := call(of, logits, labels)
	if math.Abs(h.Loss[0]-math.Log(k-1)) > 1e-14 || h.DLogits[16] != 0 || !math.IsNaN(h.Loss[1]) {
		t.Errorf("a logit of -Inf has the loss %v and the gradient %v, one of NaN the loss %v", h.Loss[0], h.DLogits[16], h.Loss[1])
	}
}
