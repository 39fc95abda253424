package strategy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/space"
)

// race trains all networks from the same seeds, one seed after the other, and drops networks that
// are significantly worse than the best. There are R = seeds − min_seeds + 1 rounds. After each
// round the test of search.Race compares the network of the highest mean with every other one.
//
// It is an error to drop a network j if the hypothesis H_j is true: no other network has a higher
// true mean. pooled and paired limit the probability of any error in the whole race to alpha;
// signedRank limits nothing. All tests are one-sided, because only a worse network is dropped.
// Trainings that sometimes collapse are not normally distributed, and the limits do not hold for
// them; docs/search.md has simulations.
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
	case len(all) == 1 && len(rounds) > 0:
		d.Reason = fmt.Sprintf("%s is the only network, after %d of %d seeds", all[0].system.Label(), seeds-1, len(s.Seeds))
	case len(alive) == 1 && len(rounds) > 0:
		d.Reason = fmt.Sprintf("%s is better than every other of %d by %s, after %d of %d seeds",
			all[alive[0]].system.Label(), len(begun)+len(entering), RaceTest(s.Race, rounds), seeds-1, len(s.Seeds))
	case seeds > len(s.Seeds) && FindAnswer(s, trials).Trials == 0:
		d.Reason = "no network was trained to the end"
	case seeds > len(s.Seeds):
		slices.SortStableFunc(alive, func(i, j int) int {
			a, _ := all[i].mean(trials, s.DecidingSplit(), len(s.Seeds), s.Epochs)
			b, _ := all[j].mean(trials, s.DecidingSplit(), len(s.Seeds), s.Epochs)
			return cmp.Compare(b, a)
		})
		d.Reason = fmt.Sprintf("all %d seeds are used: %d of %d networks are not separated by %s, the best first: %s",
			len(s.Seeds), len(alive), len(begun)+len(entering), RaceTest(s.Race, rounds), labels(systems(all, alive)))
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
	// Test is the search.Race.Test that decided. In a race by pooled tests it is RacePaired if the
	// pooled test would have dropped more, but the spreads differ.
	Test string
}

// RaceTest says by which test the rounds of a race were decided.
func RaceTest(r search.Race, rounds []Round) string {
	if r.Test == search.RaceSignedRank {
		return fmt.Sprintf("signed-rank tests at p < %g (quick: no bound on the error)", quickLevel)
	}
	text := fmt.Sprintf("%s t tests at alpha %g", cmp.Or(r.Test, search.RacePooled), r.Alpha)
	var paired []string
	for _, round := range rounds {
		if r.Test == "" && round.Test == search.RacePaired {
			paired = append(paired, fmt.Sprint(round.Seeds))
		}
	}
	if len(paired) > 0 {
		text += fmt.Sprintf(" (only paired after %s seeds, since the spreads may differ)", strings.Join(paired, ", "))
	}
	return text
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
			accuracies[i] = all[i].accuracies(trials, s.DecidingSplit(), seeds, s.Epochs)
		}
		best, dropped, test := r.round(look{accuracies, alive, len(field), len(s.Seeds),
			pictures(trials, s.DecidingSplit())})
		round := Round{Seeds: seeds, Best: all[best].system, Test: test}
		var left []int
		for _, i := range alive {
			if dropped[i] {
				round.Dropped = append(round.Dropped, all[i].system)
			} else {
				round.Left, left = append(round.Left, all[i].system), append(left, i)
			}
		}
		rounds, alive = append(rounds, round), left
	}
	return rounds, alive
}

func systems(all []network, which []int) (list []space.System) {
	for _, i := range which {
		list = append(list, all[i].system)
	}
	return list
}

// labels returns the names of some networks, separated by commas.
func labels(systems []space.System) string {
	const most = 6
	var names []string
	for _, s := range systems[:min(most, len(systems))] {
		names = append(names, s.Label())
	}
	if len(systems) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
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
