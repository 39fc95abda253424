package posterior

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat/distmv"
	"gonum.org/v1/gonum/stat/distuv"
)

// A model must be right about studies that are drawn from its own prior: of all networks to which it
// gives a probability of 0.3, three in ten must be the best (Cook, Gelman & Rubin, Validation of
// software for Bayesian models using posterior quantiles, 2006). A wrong weight of a part of the
// mixture, a wrong draw or a wrong spread fails here. NewSurface has an approximate prior, which is
// near enough.
func TestCalibratedOnItsPrior(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation runs in one goroutine: the race detector, for which -short is, finds nothing in it")
	}
	t.Parallel()
	x := []float64{0, 1, math.Log2(3), 2, 3}
	plane := [][]float64{{-1, -1}, {-1, 1}, {1, -1}, {1, 1}, {0, 0}, {0.5, -1.5}, {-0.5, 1.5}, {0, 1}}
	curve, surface := NewCurve(x, Quick).(*field), NewSurface(plane).(*surface)
	for _, c := range []struct {
		name     string
		model    Model
		networks int
		seeds    []float64
		truth    func(random *rand.Rand) (theta []float64, isConcave bool) // in units of σ
		trained  int                                                       // networks that are trained
	}{
		{"curve", curve, len(x), Quick.seeds, curve.truth(x), len(x)},
		{"surface", surface, len(plane), []float64{surfaceSeeds}, surface.truth(), 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(5, 6))
			var best, concave, within, lower calibration
			for range 1500 {
				sigma := sigmaScale * math.Sqrt(sigmaShape/distuv.Gamma{Alpha: sigmaShape, Beta: 1, Src: random}.Rand())
				theta, isConcave := c.truth(random)
				effect := math.Sqrt(c.seeds[random.IntN(len(c.seeds))])
				effects := []float64{effect * random.NormFloat64(), effect * random.NormFloat64(), effect * random.NormFloat64()}
				var results []Result
				for _, i := range random.Perm(c.networks)[:c.trained] {
					for seed := range 1 + random.IntN(len(effects)) {
						y := theta[i] + effects[seed] + random.NormFloat64()
						results = append(results, Result{i, seed, 60 + sigma*y})
					}
				}
				post := c.model.Given(results)
				concave.add(post.Concave, isConcave)
				truly := top(theta, nil)
				for i, p := range post.Best(nil) {
					best.add(p, i == truly)
				}
				leader := top(post.Within(0.3, nil), nil)
				within.add(post.Within(0.3, nil)[leader], sigma*(theta[truly]-theta[leader]) <= 0.3)
				share := 0.
				for _, draw := range post.Draws {
					if draw[1]-draw[0] < sigma*(theta[1]-theta[0]) {
						share += 1 / float64(len(post.Draws))
					}
				}
				lower.add(0.25, share < 0.25)
				lower.add(0.75, share < 0.75)
			}
			best.check(t, "the best")
			within.check(t, "within 0.3 points of the best")
			lower.check(t, "below a quantile")
			if c.model == Model(curve) {
				concave.check(t, "concave")
			}
		})
	}
}

// calibration counts events by the probability that they were given, in tenths.
type calibration [10]struct{ events, expected, variance float64 }

func (c *calibration) add(p float64, happened bool) {
	if math.IsNaN(p) {
		return
	}
	bin := &c[min(9, int(10*p))]
	bin.expected += p
	bin.variance += p * (1 - p)
	if happened {
		bin.events++
	}
}

// check allows for four standard deviations, and for the error of the draws.
func (c *calibration) check(t *testing.T, event string) {
	t.Helper()
	for i, bin := range c {
		if math.Abs(bin.events-bin.expected) > 4*math.Sqrt(bin.variance)+0.03*bin.expected+1 {
			t.Errorf("%s, given %d to %d %%: expected %.0f events, %.0f happened", event, 10*i, 10*i+10, bin.expected, bin.events)
		}
	}
}

// draw returns one of the values, each with its probability.
func draw(random *rand.Rand, of []weighted) float64 {
	u := random.Float64()
	for _, w := range of {
		if u -= w.weight; u < 0 {
			return w.value
		}
	}
	return of[len(of)-1].value
}

// truth returns a function that draws means from the prior of NewCurve.
func (f *field) truth(x []float64) func(*rand.Rand) ([]float64, bool) {
	return func(random *rand.Rand) ([]float64, bool) {
		theta := make([]float64, len(x))
		if random.IntN(2) == 0 {
			g, s := f.shapes[random.IntN(len(f.shapes))], slopes[random.IntN(len(slopes))]*math.Abs(random.NormFloat64())
			nugget := draw(random, nuggets)
			for i := range theta {
				theta[i] = s*g[i] + nugget*random.NormFloat64()
			}
			return theta, nugget <= nuggets[smallNuggets-1].value
		}
		amplitude, rho := amplitudes[random.IntN(len(amplitudes))], draw(random, roughness)
		scaled := make([][]float64, len(x))
		for i, v := range x {
			scaled[i] = []float64{(v - x[0]) / (x[len(x)-1] - x[0])}
		}
		smooth, unit := gaussianProcess(random, scaled, lengths[random.IntN(len(lengths))])
		floats.Scale(1/math.Sqrt(unit), smooth)
		for i := range theta {
			theta[i] = amplitude * (math.Sqrt(1-rho)*smooth[i] + math.Sqrt(rho)*random.NormFloat64())
		}
		return theta, false
	}
}

// truth returns a function that draws means from the prior of NewSurface.
func (s *surface) truth() func(*rand.Rand) ([]float64, bool) {
	return func(random *rand.Rand) ([]float64, bool) {
		length := bumpLengths[random.IntN(len(bumpLengths))]
		bump, nugget := bumps[random.IntN(len(bumps))], ownNuggets[random.IntN(len(ownNuggets))]
		theta, _ := gaussianProcess(random, s.x, length)
		for i := range theta {
			theta[i] = bump*theta[i] + nugget*random.NormFloat64()
		}
		_, terms := s.quadratic.Dims()
		for term := range terms {
			coefficient := quadraticScale * random.NormFloat64()
			for i := range theta {
				theta[i] += coefficient * s.quadratic.At(i, term)
			}
		}
		return theta, false
	}
}

// gaussianProcess draws one of unit variance, and returns its expected variance about the mean over
// the points.
func gaussianProcess(random *rand.Rand, x [][]float64, length float64) (theta []float64, unit float64) {
	k := len(x)
	c := mat.NewSymDense(k, nil)
	for i := range k {
		for j := range i + 1 {
			d := floats.Distance(x[i], x[j], 2)
			c.SetSym(i, j, math.Exp(-d*d/(2*length*length)))
		}
	}
	unit = (mat.Trace(c) - mat.Sum(c)/float64(k)) / float64(k)
	for i := range k {
		c.SetSym(i, i, c.At(i, i)+1e-8)
	}
	normal, ok := distmv.NewNormal(make([]float64, k), c, random)
	if !ok {
		panic("the covariance is not positive definite")
	}
	return normal.Rand(nil), unit
}

func TestPoints(t *testing.T) {
	for _, dimensions := range []int{4, 999, 1000, 1003} {
		mean := mat.Sum(points(16, dimensions, rand.NewPCG(1, 0))) / float64(16*dimensions)
		if math.Abs(mean-0.5) > 0.02 {
			t.Errorf("%d dimensions: a mean of %g", dimensions, mean)
		}
	}
}
