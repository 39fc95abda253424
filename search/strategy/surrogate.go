package strategy

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/search"
	"igcsearch/space"
)

// enter returns the networks that should begin now, the most important first. If a study has at
// most most networks, these are all that have not begun. Otherwise enter returns one network at a
// time, until most have begun. The first is the widest, because the paper finds the best networks
// near the largest width (Eq. 15, Figure 3). Then come the networks that are farthest from those
// that have begun (a maximin design), until 2·(dimensions + 1) have begun. After that it is the
// network with the highest expected improvement. means returns mean accuracies by network, if
// possible of at least enough networks.
func enter(trials []search.TrialState, all []network, most int, means func(enough int) map[int]float64) []int {
	var begun, rest []int
	for i, a := range all {
		if a.started(trials) {
			begun = append(begun, i)
		} else {
			rest = append(rest, i)
		}
	}
	if len(all) <= most {
		return rest
	}
	if len(begun) >= most {
		return nil
	}
	if len(begun) == 0 {
		return []int{slices.MaxFunc(rest, func(i, j int) int {
			return cmp.Or(cmp.Compare(logWidth(all[i].system), logWidth(all[j].system)), j-i) // the first if equal
		})}
	}
	x := features(trials, all)
	design := 2 * (len(x[0]) + 1)
	known := means(design)
	if len(begun) < design || len(known) < 3 {
		return []int{farthest(x, begun, rest)}
	}
	return []int{propose(x, known, begun, rest)}
}

// logWidth returns the sum of ln(width) over the stages whose pairs are part of the network's name.
func logWidth(s space.System) float64 {
	if s.Family != space.FamilyIGC {
		return math.Log(float64(max(1, s.Width)))
	}
	sum := 0.0
	for _, p := range s.Stages {
		if p != (space.Pair{}) {
			sum += math.Log(float64(p.Width()))
		}
	}
	return sum
}

// features describes each network for the model by ln M of every stage, ln depth and ln parameters.
// Each feature is scaled to mean 0 and standard deviation 1 over all networks. It leaves out
// features that are the same for all networks.
func features(trials []search.TrialState, all []network) [][]float64 {
	raw := make([][]float64, 6)
	for _, a := range all {
		m := 0.0
		for i, p := range a.system.Stages {
			if p.M > 0 {
				m = math.Log(float64(p.M))
			} else if a.system.Width > 0 {
				m = math.Log(float64(a.system.Width)) // a regular convolution has one partition
			}
			raw[i] = append(raw[i], m)
		}
		raw[4] = append(raw[4], math.Log(float64(max(1, a.system.Depth))))
		raw[5] = append(raw[5], math.Log(float64(max(1, trials[a.trials[0]].Params))))
	}
	var columns [][]float64
	for i, column := range raw {
		if i > 0 && i < 4 && slices.Equal(column, raw[i-1]) {
			continue // the stage has no pair of its own
		}
		if mean, sd := stat.MeanStdDev(column, nil); sd > 0 {
			for k := range column {
				column[k] = (column[k] - mean) / sd
			}
			columns = append(columns, column)
		}
	}
	x := make([][]float64, len(all))
	for i := range x {
		for _, column := range columns {
			x[i] = append(x[i], column[i])
		}
	}
	return x
}

// distance2 returns the square of the distance between two points.
func distance2(a, b []float64) (sum float64) {
	for k := range a {
		sum += (a[k] - b[k]) * (a[k] - b[k])
	}
	return sum
}

// farthest returns the network of rest whose nearest network of begun is the farthest. If several
// are equal, it returns the first.
func farthest(x [][]float64, begun, rest []int) int {
	best, most := rest[0], -1.0
	for _, i := range rest {
		nearest := math.Inf(1)
		for _, j := range begun {
			nearest = min(nearest, distance2(x[i], x[j]))
		}
		if nearest > most {
			best, most = i, nearest
		}
	}
	return best
}

// propose returns the network of rest with the highest expected improvement over the best of known
// (Jones, Schonlau & Welch, 1998):
//
//	EI = (µ − f)·Φ(z) + σ·φ(z),  z = (µ − f)/σ
//
// Here f is the highest mean that the model predicts for the known networks, because a single high
// accuracy may be noise. For a network that has begun but has no accuracy yet, propose uses the
// accuracy that the model predicts. So several workers do not all get similar networks.
func propose(x [][]float64, known map[int]float64, begun, rest []int) int {
	var points [][]float64
	var y []float64
	for _, i := range begun {
		if v, ok := known[i]; ok {
			points, y = append(points, x[i]), append(y, v)
		}
	}
	g := fitGP(points, y)
	at, _ := g.predict(points)
	f := slices.Max(at)
	var waiting [][]float64
	for _, i := range begun {
		if _, ok := known[i]; !ok {
			waiting = append(waiting, x[i])
		}
	}
	if len(waiting) > 0 {
		expected, _ := g.predict(waiting)
		g = g.given(append(points, waiting...), append(y, expected...))
	}
	candidates := make([][]float64, len(rest))
	for k, i := range rest {
		candidates[k] = x[i]
	}
	means, sds := g.predict(candidates)
	best, most := rest[0], math.Inf(-1)
	for k, m := range means {
		ei := max(0, m-f)
		if sds[k] > 0 {
			z := (m - f) / sds[k]
			ei = (m-f)*distuv.UnitNormal.CDF(z) + sds[k]*distuv.UnitNormal.Prob(z)
		}
		if ei > most {
			best, most = rest[k], ei
		}
	}
	return best
}

// gp is a Gaussian process with a constant mean and the covariance
//
//	scale · (exp(−|x − x'|²/(2·length²)) + noise·[x = x'])
//
// (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, Section 2.2). Below, R is
// the matrix of the exponentials and y the values at the points.
type gp struct {
	length, noise float64 // noise is a share of scale
	scale         float64 // the variance of the values
	mean          float64
	points        [][]float64
	chol          mat.Cholesky  // of R + noise·I
	weights       *mat.VecDense // (R + noise·I)⁻¹·(y − mean)
}

// fitGP chooses length and noise from a small grid by the marginal likelihood (Rasmussen &
// Williams, Eq. 5.8) with the best scale, yᵀ·(R + noise·I)⁻¹·y/n. A grid needs no starting point
// and gives the same result on every machine.
func fitGP(points [][]float64, y []float64) gp {
	best, highest := gp{}, math.Inf(-1)
	for _, length := range []float64{0.35, 0.5, 0.7, 1, 1.4, 2, 2.8} {
		for _, noise := range []float64{0.001, 0.01, 0.03, 0.1, 0.3, 1} {
			g := gp{length: length, noise: noise}.given(points, y)
			g.scale = g.fitted(y)
			n := float64(len(y))
			if l := -0.5*n*math.Log(max(g.scale, 1e-300)) - 0.5*g.chol.LogDet(); l > highest {
				best, highest = g, l
			}
		}
	}
	return best
}

// fitted returns the scale with the highest likelihood.
func (g gp) fitted(y []float64) float64 {
	sum := 0.0
	for i, v := range y {
		sum += (v - g.mean) * g.weights.AtVec(i)
	}
	return sum / float64(len(y))
}

// given returns a process with the length, noise and scale of g, conditioned on the values y at
// points.
func (g gp) given(points [][]float64, y []float64) gp {
	n := len(points)
	next := gp{length: g.length, noise: g.noise, scale: g.scale, points: points, mean: stat.Mean(y, nil)}
	k := mat.NewSymDense(n, nil)
	for i := range n {
		for j := range i {
			k.SetSym(i, j, g.covariance(points[i], points[j]))
		}
		k.SetSym(i, i, 1+g.noise)
	}
	if !next.chol.Factorize(k) {
		panic("strategy: a covariance with noise on its diagonal is not positive definite")
	}
	centred := mat.NewVecDense(n, nil)
	for i, v := range y {
		centred.SetVec(i, v-next.mean)
	}
	next.weights = mat.NewVecDense(n, nil)
	if err := next.chol.SolveVecTo(next.weights, centred); err != nil {
		panic(err) // noise·I limits the condition number of the factorised matrix
	}
	return next
}

// covariance returns the covariance of two points without scale and noise.
func (g gp) covariance(a, b []float64) float64 {
	return math.Exp(-distance2(a, b) / (2 * g.length * g.length))
}

// predict returns the means and the standard deviations, without noise, of the process at each
// point of x (Rasmussen & Williams, Eq. 2.25 and 2.26).
func (g gp) predict(x [][]float64) (means, sds []float64) {
	k := mat.NewDense(len(g.points), len(x), nil)
	for i, p := range g.points {
		for j := range x {
			k.Set(i, j, g.covariance(x[j], p))
		}
	}
	var v mat.Dense
	if err := g.chol.SolveTo(&v, k); err != nil {
		panic(err) // as in given
	}
	for j := range x {
		mean, known := g.mean, 0.0
		for i := range g.points {
			mean += k.At(i, j) * g.weights.AtVec(i)
			known += k.At(i, j) * v.At(i, j)
		}
		means = append(means, mean)
		sds = append(sds, math.Sqrt(g.scale*max(0, 1-known)))
	}
	return means, sds
}

// design returns the networks that a search of a large space begins with: the one nearest to the
// middle of the space, and those that are farthest from the ones before, 2·(dimensions + 1) but at
// least 8.
func design(x [][]float64) []int {
	distance := func(i int) (sum float64) {
		for _, v := range x[i] {
			sum += math.Abs(v)
		}
		return sum
	}
	rest := make([]int, len(x))
	for i := range rest {
		rest[i] = i
	}
	list := []int{slices.MinFunc(rest, func(i, j int) int { return cmp.Compare(distance(i), distance(j)) })}
	for len(list) < min(len(x), max(8, 2*(len(x[0])+1))) {
		list = append(list, farthest(x, list, rest))
	}
	return list
}
