package graph

import (
	"math"
	"math/rand/v2"
	"strings"

	"igcsearch/trainer/samebits"
)

// Initialise draws the first weights: convolutions are normal with variance
// 2/fan_in, the linear layer is uniform within ±sqrt(1/fan_in), scales are 1, all
// other parameters 0. Each tensor has random numbers of its own.
func (m *Model) Initialise(seed uint64) {
	for k, p := range m.Params {
		var pcg rand.PCG
		pcg.Seed(seed, 0x1c5ea4c4<<32|uint64(k))
		// Uniform in (0, 1): 53 bits and a half.
		uniform := func() float64 { return (float64(pcg.Uint64()>>11) + 0.5) / (1 << 53) }
		for i := range p.Value {
			switch {
			case p.FanIn > 0 && len(p.Shape) == 4:
				// Box and Muller's method, written out because rand.NormFloat64
				// promises no algorithm.
				n := math.Sqrt(-2*samebits.Log(uniform())) * samebits.Cos(2*math.Pi*uniform())
				p.Value[i] = float32(n * math.Sqrt(2/float64(p.FanIn)))
			case p.FanIn > 0:
				p.Value[i] = float32((2*uniform() - 1) * math.Sqrt(1/float64(p.FanIn)))
			case strings.HasSuffix(p.Name, ".weight"): // a scale
				p.Value[i] = 1
			}
		}
	}
}
