package strategy

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"sync"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"

	"igcsearch/search"
	"igcsearch/search/posterior"
	"igcsearch/space"
)

// large keeps the model of a large space, because it takes longer to make than to ask.
type large struct {
	mu      sync.Mutex
	x       [][]float64
	surface posterior.Model
}

// model returns the model of networks with the features x.
func (l *large) model(x [][]float64) posterior.Model {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.EqualFunc(l.x, x, slices.Equal[[]float64]) {
		l.x, l.surface = x, posterior.NewSurface(x)
	}
	return l.surface
}

// enter returns the networks that should begin now, the most important first. If a study has at
// most most networks, these are all that have not begun. Otherwise enter returns one network at a
// time, until most have begun. The first is the widest, because the paper finds the best networks
// near the largest width (Eq. 15, Figure 3). Then come the networks that are farthest from those
// that have begun (a maximin design), until 2·(dimensions + 1) have begun. After that it is the
// network with the highest expected improvement. means returns mean accuracies by network, if
// possible of at least enough networks.
func (l *large) enter(trials []search.TrialState, all []network, most int, means func(enough int) map[int]float64) []int {
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
	// The accuracy of a network whose trials diverged is 0. The model would take the distance to the
	// others for the spread.
	maps.DeleteFunc(known, func(_ int, mean float64) bool { return mean == 0 })
	if len(begun) < design || len(known) < 3 {
		return []int{farthest(x, begun, rest)}
	}
	return []int{l.propose(x, known, rest)}
}

// logWidth returns the sum of ln(width) over the stages whose pairs are part of the network's name.
func logWidth(s space.System) float64 {
	if s.Family != space.FamilyIGC {
		return math.Log(float64(max(1, s.Width())))
	}
	sum := 0.0
	for _, p := range s.Stages {
		if p != (space.Pair{}) {
			sum += math.Log(float64(p.Width()))
		}
	}
	return sum
}

// features describes each network for the model by ln M of every stage, ln depth and ln parameters. M
// is the number of channels in a partition of the first convolution of a block.
// Each feature is scaled to mean 0 and standard deviation 1 over all networks. It leaves out
// features that are the same for all networks.
func features(trials []search.TrialState, all []network) [][]float64 {
	raw := make([][]float64, 6)
	for _, a := range all {
		m := 0.0
		for i, p := range a.system.Stages {
			if p.M > 0 {
				m = math.Log(float64(p.M))
			} else if a.system.Family != space.FamilyIGC {
				m = math.Log(float64(a.system.Width() / a.system.Block()[0].Groups))
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
			scaled := make([]float64, len(column)) // the next stage is compared with the column as it was
			for k, v := range column {
				scaled[k] = (v - mean) / sd
			}
			columns = append(columns, scaled)
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

// farthest returns the network of rest whose nearest network of begun is the farthest. If several
// are equal, it returns the first.
func farthest(x [][]float64, begun, rest []int) int {
	best, most := rest[0], -1.0
	for _, i := range rest {
		nearest := math.Inf(1)
		for _, j := range begun {
			nearest = min(nearest, floats.Distance(x[i], x[j], 2))
		}
		if nearest > most {
			best, most = i, nearest
		}
	}
	return best
}

// propose returns the network of rest whose mean is expected to be the most above that of the best
// of known, by E[max(0, θ_j − θ_best)] under a model of the space (posterior.NewSurface).
func (l *large) propose(x [][]float64, known map[int]float64, rest []int) int {
	var results []posterior.Result
	for _, i := range slices.Sorted(maps.Keys(known)) {
		results = append(results, posterior.Result{Network: i, Score: 100 * known[i]})
	}
	post := l.model(x).Given(results)
	mean, best := post.Mean(), -1
	for _, r := range results {
		if best < 0 || mean[r.Network] > mean[best] {
			best = r.Network
		}
	}
	gain := post.Improvement(best)
	return slices.MaxFunc(rest, func(i, j int) int { return cmp.Or(cmp.Compare(gain[i], gain[j]), j-i) })
}

// design returns the networks that a search of a large space begins with: the one nearest to the
// middle of the space, and those that are farthest from the ones before, 2·(dimensions + 1) but at
// least 8.
func design(x [][]float64) []int {
	distance := func(i int) float64 { return floats.Norm(x[i], 1) }
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
