package posterior

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

const (
	cells    = 32   // in which −g″ of a shape has its mass
	monotone = 0.15 // the share of the shapes that only fall, and of those that only rise
)

// concaveShapes returns n concave functions at the points x, each with the mean 0 and the standard
// deviation 1 over these points. −g″ of a function is a Dirichlet process: a concentration of 1
// gives a few kinks, and one of 20 almost a parabola. The peaks are spread evenly over the range of
// x.
func concaveShapes(x []float64, n int) [][]float64 {
	random := rand.New(rand.NewPCG(7, 0))
	low, high := floats.Min(x), floats.Max(x)
	place := random.Perm(n)
	shapes := make([][]float64, n)
	for m := range shapes {
		concentration := []float64{1, 4, 20}[m%3]
		gamma := distuv.Gamma{Alpha: concentration / cells, Beta: 1, Src: random}
		var mass [cells]float64
		for j := range mass {
			mass[j] = gamma.Rand() + 1e-12
		}
		floats.Scale(1/floats.Sum(mass[:]), mass[:])
		// v is where the peak is; slope is what a monotone function has at its highest end.
		v, slope := (float64(place[m])+0.5)/float64(n), 0.
		peak := (v - monotone) / (1 - 2*monotone)
		if v < monotone || v > 1-monotone {
			peak = math.Round(v)
			slope = distuv.Exponential{Rate: 2, Src: random}.Rand()
		}
		g := make([]float64, len(x))
		for i := range x {
			z := (x[i] - low) / (high - low)
			g[i] = -slope * math.Abs(z-peak)
			for j, w := range mass {
				t := (float64(j) + 0.5) / cells
				if t >= min(z, peak) && t <= max(z, peak) {
					g[i] -= w * math.Abs(z-t)
				}
			}
		}
		if stat.PopStdDev(g, nil) < 1e-9 { // all the mass lies between two points
			for i := range x {
				z := (x[i] - low) / (high - low)
				g[i] = -(z - 0.5) * (z - 0.5)
			}
		}
		floats.AddConst(-stat.Mean(g, nil), g)
		floats.Scale(1/stat.PopStdDev(g, nil), g)
		shapes[m] = g
	}
	return shapes
}
