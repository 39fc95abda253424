package strategy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"igcsearch/search"
	"igcsearch/space"
)

// race trains all networks from the same seeds, seed by seed, and drops those
// that are significantly worse than the best.
//
// A network j may be dropped falsely if it is truly best (H_j: no mean is above
// j's), also if it shares that place. After each of the R = seeds − min_seeds + 1
// rounds the network b of the highest mean is compared with every other that is
// left by a paired t test over their common seeds; one-sided, because only a
// worse network is dropped. b was chosen by the same data out of k − 1 rivals of
// j, and the test is repeated R times, so by Bonferroni
//
//	p_j = (k − 1) · R · P(T_{n−1} ≥ d̄·√n / s_d),  d = accuracy of b − that of j
//
// is valid for H_j over the whole race: P(p_j ≤ x in any round) ≤ x. Holm's
// procedure over the k hypotheses, those that fell before counted as rejected,
// then bounds the probability that any true H_j falls by alpha, for every
// dependence between networks, seeds and rounds (Holm, 1979). The t test is exact
// for normal differences; variances may differ from network to network. Trainings
// that collapse now and then are not normal, and break the bound: docs/search.md.
type race struct{ search.Race }

func (r race) Decide(s search.Study, trials []search.TrialState) search.Decision {
	all := networks(trials)
	if len(all) == 0 {
		return search.Decision{Reason: "there are no trials"}
	}
	var d search.Decision
	begun, entering := r.field(s, trials, all)
	if len(all) > r.Systems && len(entering) > 0 {
		for _, i := range append(begun, entering...) {
			d.Next = append(d.Next, all[i].train(trials, r.MinSeeds, s.Epochs)...)
		}
		return d
	}
	rounds, alive := r.rounds(s, trials, all, append(begun, entering...))
	seeds := r.MinSeeds + len(rounds)
	switch {
	case len(alive) == 1 && len(rounds) > 0:
		d.Reason = fmt.Sprintf("%s is better than every other of %d at alpha %g, after %d of %d seeds",
			all[alive[0]].system.Label(), len(begun)+len(entering), r.Alpha, seeds-1, s.Seeds)
	case seeds > s.Seeds && FindAnswer(s, trials).Trials == 0:
		d.Reason = "no network was trained to the end"
	case seeds > s.Seeds:
		slices.SortStableFunc(alive, func(i, j int) int {
			a, _ := all[i].mean(trials, s.DecidingSplit(), s.Seeds, s.Epochs)
			b, _ := all[j].mean(trials, s.DecidingSplit(), s.Seeds, s.Epochs)
			return cmp.Compare(b, a)
		})
		d.Reason = fmt.Sprintf("all %d seeds are used: %d of %d networks are not separated at alpha %g, the best "+
			"first: %s", s.Seeds, len(alive), len(begun)+len(entering), r.Alpha, labels(all, alive))
	default:
		for _, i := range alive {
			d.Next = append(d.Next, all[i].train(trials, seeds, s.Epochs)...)
		}
		slices.SortStableFunc(d.Next, func(a, b search.Step) int {
			return cmp.Compare(trials[a.Trial].Seed,
				trials[b.Trial].Seed)
		})
	}
	return d
}

// field returns who takes part: who has begun, and who enters next.
func (r race) field(s search.Study, trials []search.TrialState, all []network) (begun, entering []int) {
	for i, a := range all {
		if a.started(trials) {
			begun = append(begun, i)
		}
	}
	return begun, enter(trials, all, r.Systems, func(int) map[int]float64 {
		means := map[int]float64{}
		for i, a := range all {
			if v, ok := a.mean(trials, s.DecidingSplit(), r.MinSeeds, s.Epochs); ok {
				means[i] = v
			}
		}
		return means
	})
}

// Round is one finished round of a race.
type Round struct {
	Seeds         int // of each network, so far
	Best          space.System
	Dropped, Left []space.System // Left has Best
}

// Rounds returns the rounds of the race of a normalised study with the strategy
// "race" that are finished.
func Rounds(s search.Study, trials []search.TrialState) []Round {
	r, all := race{s.Race}, networks(trials)
	if len(all) == 0 {
		return nil
	}
	begun, entering := r.field(s, trials, all)
	if len(all) > r.Systems && len(entering) > 0 {
		return nil // the race has not begun
	}
	rounds, _ := r.rounds(s, trials, all, append(begun, entering...))
	return rounds
}

// rounds runs the race again from what is recorded, and returns its finished
// rounds and who is left. A round uses its own seeds only, so it ends the same
// whoever asks and however often. It ends early for one network.
func (r race) rounds(s search.Study, trials []search.TrialState, all []network, field []int) (rounds []Round, alive []int) {
	alive = slices.Clone(field)
	slices.Sort(alive)
	accuracies := make([][]float64, len(all)) // by seed; NaN: failed
	for seeds := r.MinSeeds; seeds <= s.Seeds && (len(alive) > 1 || len(rounds) == 0); seeds++ {
		for _, i := range alive {
			for _, t := range all[i].trials[:min(seeds, len(all[i].trials))] {
				if !reached(&trials[t], s.Epochs) {
					return rounds, alive
				}
			}
		}
		for _, i := range alive {
			from, to := min(len(accuracies[i]), len(all[i].trials)), min(seeds, len(all[i].trials))
			for _, t := range all[i].trials[from:to] {
				v, ok := accuracy(&trials[t], s.DecidingSplit(), s.Epochs)
				if !ok {
					v = math.NaN()
				}
				accuracies[i] = append(accuracies[i], v)
			}
		}
		best, left := r.round(accuracies, alive, len(field), s.Seeds, pictures(trials, s.DecidingSplit()))
		round := Round{Seeds: seeds, Best: all[best].system}
		for _, i := range alive {
			if slices.Contains(left, i) {
				round.Left = append(round.Left, all[i].system)
			} else {
				round.Dropped = append(round.Dropped, all[i].system)
			}
		}
		rounds, alive = append(rounds, round), left
	}
	return rounds, alive
}

// labels names some networks.
func labels(all []network, which []int) string {
	const most = 6
	var names []string
	for _, i := range which[:min(most, len(which))] {
		names = append(names, all[i].system.Label())
	}
	if len(which) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// round returns the best of alive and who of them stays after a test, of began
// networks and seeds seeds in the whole race; accuracies are of so many pictures.
func (r race) round(accuracies [][]float64, alive []int, began, seeds, pictures int) (best int, stay []int) {
	best = alive[0]
	for _, i := range alive {
		if mean(accuracies[i]) > mean(accuracies[best]) {
			best = i
		}
	}
	type comparison struct {
		network int
		p       float64
	}
	var tests []comparison
	rounds := seeds - r.MinSeeds + 1
	for _, i := range alive {
		if i != best {
			p := pairedP(accuracies[best], accuracies[i], pictures) * float64(began-1) * float64(rounds)
			tests = append(tests, comparison{i, p})
		}
	}
	slices.SortStableFunc(tests, func(a, b comparison) int { return cmp.Compare(a.p, b.p) })
	dropped := map[int]bool{}
	for k, t := range tests {
		if !(t.p <= r.Alpha/float64(len(alive)-k)) { // Holm: k of those alive have fallen now
			break
		}
		dropped[t.network] = true
	}
	for _, i := range alive {
		if !dropped[i] {
			stay = append(stay, i)
		}
	}
	return best, stay
}

// mean skips NaN; −Inf if nothing is left.
func mean(v []float64) float64 {
	sum, n := 0.0, 0
	for _, x := range v {
		if !math.IsNaN(x) {
			sum += x
			n++
		}
	}
	if n == 0 {
		return math.Inf(-1)
	}
	return sum / float64(n)
}

// pairedP is the one-sided p of a paired t test that a's mean is above b's, over
// the seeds that both have; 1 if these are fewer than two. An accuracy is of so
// many pictures.
func pairedP(a, b []float64, pictures int) float64 {
	var d []float64
	for i := range min(len(a), len(b)) {
		if x := a[i] - b[i]; !math.IsNaN(x) {
			d = append(d, x)
		}
	}
	if len(d) < 2 {
		return 1
	}
	m, sd := stat.MeanStdDev(d, nil)
	if m <= 0 {
		return 1
	}
	// Accuracies are counts of pictures: a spread below that of rounding two of
	// them, √(2/12) pictures, is chance, and would make any difference significant.
	sd = max(sd, math.Sqrt(2.0/12)/float64(pictures))
	t := m * math.Sqrt(float64(len(d))) / sd
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(len(d) - 1)}.Survival(t)
}

// pictures is how many the accuracies of a split are of; 1 if there are none.
func pictures(trials []search.TrialState, split string) int {
	for i := range trials {
		for _, e := range trials[i].History {
			if _, total := e.Correct(split); total > 0 {
				return total
			}
		}
	}
	return 1
}
