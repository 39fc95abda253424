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

// race trains all networks from the same seeds, one seed after the other, and drops networks that
// are significantly worse than the best.
//
// It is an error to drop a network j if the hypothesis H_j is true: no other network has a higher
// true mean. There are R = seeds − min_seeds + 1 rounds. After each round a paired t test over the
// common seeds compares the network b of the highest mean with every other remaining network. The
// test is one-sided, because only a worse network is dropped. The same data have chosen b out of
// the k − 1 rivals of j, and the test is repeated R times. So by Bonferroni
//
//	p_j = (k − 1) · R · P(T_{n−1} ≥ d̄·√n / s_d),  d = accuracy of b − accuracy of j
//
// is a valid p for H_j over the whole race: P(p_j ≤ x in any round) ≤ x. Holm's procedure over the
// k hypotheses counts networks that were dropped before as rejected. It limits the probability that
// the race rejects any true H_j to alpha, for every dependence between networks, seeds and rounds
// (Holm, 1979). The t test is exact for normally distributed differences; the variances of the
// networks may differ. Trainings that sometimes collapse are not normal, and the limit does not
// hold for them; docs/search.md has simulations.
type race struct {
	search.Race
	*large
}

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
			all[alive[0]].system.Label(), len(begun)+len(entering), r.Alpha, seeds-1, len(s.Seeds))
	case seeds > len(s.Seeds) && FindAnswer(s, trials).Trials == 0:
		d.Reason = "no network was trained to the end"
	case seeds > len(s.Seeds):
		slices.SortStableFunc(alive, func(i, j int) int {
			a, _ := all[i].mean(trials, s.DecidingSplit(), len(s.Seeds), s.Epochs)
			b, _ := all[j].mean(trials, s.DecidingSplit(), len(s.Seeds), s.Epochs)
			return cmp.Compare(b, a)
		})
		d.Reason = fmt.Sprintf("all %d seeds are used: %d of %d networks are not separated at alpha %g, the best "+
			"first: %s", len(s.Seeds), len(alive), len(begun)+len(entering), r.Alpha, labels(all, alive))
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

// field returns the networks that take part: those that have begun, and those that begin next.
func (r race) field(s search.Study, trials []search.TrialState, all []network) (begun, entering []int) {
	for i, a := range all {
		if a.started(trials) {
			begun = append(begun, i)
		}
	}
	return begun, r.enter(trials, all, r.Systems, func(int) map[int]float64 {
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
	Seeds         int // the number of seeds that each remaining network has so far
	Best          space.System
	Dropped, Left []space.System // Left includes Best
}

// Rounds returns the finished rounds of the race of a normalised study whose strategy is "race".
func Rounds(s search.Study, trials []search.TrialState) []Round {
	r, all := race{s.Race, &large{}}, networks(trials)
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

// rounds repeats the race from the recorded trials. It returns the finished rounds and the networks
// that remain. A round uses only the seeds up to its own, so its result is always the same. The
// race ends when one network remains.
func (r race) rounds(s search.Study, trials []search.TrialState, all []network, field []int) ([]Round, []int) {
	var rounds []Round
	alive := slices.Clone(field)
	slices.Sort(alive)
	accuracies := make([][]float64, len(all)) // of each network by seed; NaN for a failed trial
	for seeds := r.MinSeeds; seeds <= len(s.Seeds) && (len(alive) > 1 || len(rounds) == 0); seeds++ {
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
		best, left := r.round(accuracies, alive, len(field), len(s.Seeds), pictures(trials, s.DecidingSplit()))
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

// labels returns the names of some networks, separated by commas.
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

// round tests the networks alive and returns the best of them and those that remain. The whole race
// has began networks and seeds seeds. An accuracy is a fraction of a number of pictures.
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
		if !(t.p <= r.Alpha/float64(len(alive)-k)) { // Holm's limit, after k networks were dropped
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

// mean returns the mean of the values that are not NaN, or −Inf if there are none.
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

// pairedP returns the one-sided p of a paired t test, over common seeds, for the claim that the
// mean of a is above that of b. It returns 1 if there are fewer than two common seeds. An accuracy
// is a fraction of a number of pictures.
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
	// Accuracies are counts of pictures. The rounding of two counts alone has a spread of √(2/12)
	// pictures. A smaller spread is chance, and would make any difference significant.
	sd = max(sd, math.Sqrt(2.0/12)/float64(pictures))
	t := m * math.Sqrt(float64(len(d))) / sd
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(len(d) - 1)}.Survival(t)
}

// pictures returns the number of pictures that were evaluated in a split, or 1 if none was
// evaluated.
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
