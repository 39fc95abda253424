package strategy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"igcsearch/search"
)

// Agreement says how the order of the networks at the rungs of halving agrees with that at the end.
type Agreement struct {
	// Networks is the number of networks that are compared: those with an accuracy at every rung and
	// at the end. The rungs have chosen them, so they are more alike than all networks.
	Networks int
	Rungs    []Rung
}

// Rung is an epoch, before the end of the training, at which halving compares networks.
type Rung struct {
	Epoch   int
	Split   string // the split whose accuracy is compared
	Same    int    // the number of couples of networks that have the same order as at the end
	Crossed int    // those that clearly have the opposite one; see clearly
}

// clearly is the largest p at which a couple of networks counts as clearly ordered (pairedP). Most
// couples whose order changes are networks that differ by less than single seeds do.
const clearly = 0.2

// fewest is the number of networks from which on their order says something.
const fewest = 3

// Agree returns the agreement of a normalised study whose strategy is "halving".
func Agree(s search.Study, trials []search.TrialState) Agreement {
	return halving{Halving: s.Halving}.ladder(s, trials).agreement()
}

func (l ladder) agreement() Agreement {
	last := len(l.rungs) - 1
	ended := ranked(l.at(last))
	for rung := range l.rungs {
		at := l.at(rung)
		ended = slices.DeleteFunc(ended, func(i int) bool { return at[i] == 0 }) // not recorded, or diverged
	}
	values := func(rung int) (list [][]float64) { // of each network in ended, by seed
		epoch := l.rungs[rung]
		for _, i := range ended {
			list = append(list, l.all[i].accuracies(l.trials, l.study.DecidingSplitAt(epoch), len(l.study.Seeds), epoch))
		}
		return list
	}
	areClear := func(a, b []float64, rung int) bool {
		n := pictures(l.trials, l.study.DecidingSplitAt(l.rungs[rung]))
		return min(pairedP(differences(a, b), n), pairedP(differences(b, a), n)) <= clearly
	}
	result, end := Agreement{Networks: len(ended)}, values(last)
	for rung, epoch := range l.rungs[:last] {
		r, early := Rung{Epoch: epoch, Split: l.study.DecidingSplitAt(epoch)}, values(rung)
		for i := range ended {
			for j := range i {
				isSame := cmp.Compare(mean(early[i]), mean(early[j])) == cmp.Compare(mean(end[i]), mean(end[j]))
				switch {
				case isSame:
					r.Same++
				case areClear(early[i], early[j], rung) && areClear(end[i], end[j], last):
					r.Crossed++
				}
			}
		}
		result.Rungs = append(result.Rungs, r)
	}
	return result
}

// couples returns the number of couples of networks that are compared.
func (a Agreement) couples() int { return a.Networks * (a.Networks - 1) / 2 }

// Crossed returns the rungs at which a quarter of the couples or more clearly have the opposite
// order. docs/search.md says what this means for the answer.
func (a Agreement) Crossed() (rungs []Rung) {
	for _, r := range a.Rungs {
		if a.Networks >= fewest && 4*r.Crossed >= a.couples() {
			rungs = append(rungs, r)
		}
	}
	return rungs
}

// At names the rungs.
func (a Agreement) At() string {
	var names []string
	for _, r := range a.Rungs {
		names = append(names, r.String())
	}
	return strings.Join(names, " and ")
}

func (a Agreement) String() string {
	if a.Networks < fewest {
		return fmt.Sprintf("too few networks (%d) reached the end to compare their order with that at %s",
			a.Networks, a.At())
	}
	var counts []string
	for _, r := range a.Rungs {
		text := fmt.Sprintf("%d had the order of the end at %v", r.Same, r)
		if r.Crossed > 0 {
			text += fmt.Sprintf(", %d clearly the opposite", r.Crossed)
		}
		counts = append(counts, text)
	}
	return fmt.Sprintf("of the %d couples of %d networks, %s", a.couples(), a.Networks, strings.Join(counts, "; "))
}

func (r Rung) String() string {
	split := r.Split
	if split == search.SplitTrain {
		split = "training"
	}
	return fmt.Sprintf("epoch %d (%s accuracy)", r.Epoch, split)
}
