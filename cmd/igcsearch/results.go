package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/gonum/stat"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/studies"
)

// interrupted is shown for a trial that is stored as running, but whose
// process is gone: the next run takes it up again.
const interrupted search.Status = "interrupted"

// results are the trials of a stored study.
type results struct {
	study    search.Study
	trials   []search.TrialState  // by rising M, L, seed; may have the status interrupted
	planned  []search.TrialState  // all of them as they are stored, in the order of the plan
	attempts []store.TrialAttempt // for the live page only
	isas     []string             // arithmetic of finished attempts
	on       []string             // models of their processors or GPUs
	updated  time.Time            // of the last change to what was read
}

// findStudy reads the stored study that nameOrFile means: the one of this name in the database, else the one whose
// name is in this file.
func findStudy(ctx context.Context, db *store.DB, nameOrFile string, parts ...store.Part) (store.Results, error) {
	found, err := db.Read(ctx, nameOrFile, parts...)
	if !errors.Is(err, store.ErrNoStudy) {
		return found, err
	}
	if _, e := os.Stat(nameOrFile); e != nil {
		return found, err
	}
	file, e := studies.Load(nameOrFile, nil)
	if e != nil {
		return found, e
	}
	return db.Read(ctx, file.Name, parts...)
}

func readResults(ctx context.Context, db *store.DB, nameOrFile string, parts ...store.Part) (results, error) {
	found, err := findStudy(ctx, db, nameOrFile, parts...)
	if err != nil {
		return results{}, err
	}
	return resultsOf(found), nil
}

// resultsOf brings what was read into the order in which it is shown.
func resultsOf(stored store.Results) results {
	r := results{study: stored.Study, trials: slices.Clone(stored.Trials), planned: stored.Trials, attempts: stored.Attempts,
		on: stored.Models, updated: stored.Updated}
	order := map[space.System]int{}
	for i, system := range r.study.SystemList() {
		order[system] = i
	}
	slices.SortFunc(r.trials, func(a, b search.TrialState) int {
		return cmp.Or(cmp.Compare(order[a.System], order[b.System]), cmp.Compare(a.Seed, b.Seed))
	})
	for _, list := range stored.ISAs {
		for isa := range strings.SplitSeq(list, ", ") {
			if isa != "" && !slices.Contains(r.isas, isa) {
				r.isas = append(r.isas, isa)
			}
		}
	}
	for i, t := range r.trials {
		if t.Status == search.Running && stored.Gone[t.ID] {
			r.trials[i].Status = interrupted
		}
	}
	return r
}

// systemResult sums up the trials of one network.
type systemResult struct {
	space.System
	// accuracies are those of the done trials, in percent, of the study's
	// curve split.
	accuracies []float64
	seeds      int // trials, done or not
	params     int // of the network
}

// mean and std in percent; std has n − 1 in the denominator.
func (p systemResult) accuracy(plusMinus string) string {
	switch len(p.accuracies) {
	case 0:
		return "–"
	case 1:
		return fmt.Sprintf("%.2f", p.accuracies[0])
	}
	mean, std := stat.MeanStdDev(p.accuracies, nil)
	return fmt.Sprintf("%.2f%s%.2f", mean, plusMinus, std)
}

// n is how many trials the accuracy is of, "2 of 3" while some are missing.
func (p systemResult) n() string {
	if len(p.accuracies) < p.seeds {
		return fmt.Sprintf("%d of %d", len(p.accuracies), p.seeds)
	}
	return strconv.Itoa(p.seeds)
}

// bySystem sums up the trials in the order of the study: pairs by rising M.
func (r results) bySystem() []systemResult {
	var list []systemResult
	for _, t := range r.trials {
		if k := len(list); k == 0 || list[k-1].System != t.System {
			list = append(list, systemResult{System: t.System, params: t.Params})
		}
		p := &list[len(list)-1]
		p.seeds++
		if a, ok := r.accuracy(t.Trial); ok {
			p.accuracies = append(p.accuracies, a)
		}
	}
	return list
}

// what are the columns that tell one network of the study from another: their
// heads and values. Parameters are those of a block, if the study is of pairs,
// else of the network.
func (r results) what() []string {
	if r.study.OfPairs() {
		return []string{"L", "M", "width", "params"}
	}
	return []string{"<network", "depth", "params"}
}

func (r results) which(s space.System, params int) []string {
	if p := s.Pair(); r.study.OfPairs() {
		return []string{strconv.Itoa(p.L), strconv.Itoa(p.M), strconv.Itoa(p.Width()), strconv.Itoa(s.Variant.Params(p, r.study.Kernel))}
	}
	depth := r.study.Plan(space.Shape{}, 0).DepthOf(s)
	s.Depth = 0
	return []string{s.String(), strconv.Itoa(depth), strconv.Itoa(params)}
}

// accuracy of a done trial in percent.
func (r results) accuracy(t search.Trial) (percent float64, ok bool) {
	correct, total := t.Last.Correct(r.study.Split)
	if t.Status != search.Done || total == 0 {
		return 0, false
	}
	return 100 * float64(correct) / float64(total), true
}

// done counts the trials that have an accuracy.
func (r results) done() int {
	n := 0
	for _, t := range r.trials {
		if _, ok := r.accuracy(t.Trial); ok {
			n++
		}
	}
	return n
}

// counts says how many trials are in which state.
func (r results) counts() string {
	n := map[search.Status]int{}
	for _, t := range r.trials {
		n[t.Status]++
	}
	var parts []string
	for _, s := range []search.Status{search.Done, search.Diverged, search.Failed, search.Running, interrupted, search.Pending} {
		if n[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	return strings.Join(parts, ", ")
}

// caption says what the accuracies are.
func (r results) caption() string {
	return fmt.Sprintf("%s: accuracy on the %s pictures of %s, mean ± standard deviation over n seeds",
		r.study.Name, r.study.Split, datasetLabel(r.study.Dataset))
}

// datasetLabel names a data set for people. Synthetic pictures are called so
// wherever their numbers stand.
func datasetLabel(name string) string {
	switch name {
	case "handsigns":
		return "the hand signs"
	case "cifar10":
		return "CIFAR-10"
	case "cifar100":
		return "CIFAR-100"
	case "cifar100-coarse":
		return "CIFAR-100 (20 superclasses)"
	case "svhn":
		return "SVHN"
	case "folder":
		return "a folder"
	}
	return "the synthetic set"
}

// warn tells on stderr what the results leave out or mix.
func (r results) warn(stderr io.Writer) { printWarnings(stderr, r.study.Name, r.warnings()) }

func printWarnings(stderr io.Writer, study string, list []string) {
	for _, text := range list {
		fmt.Fprintln(stderr, warning(study, text))
	}
}

// warning is one line about a study.
func warning(study, text string) string {
	return fmt.Sprintf("igcsearch: warning: %s: %s", study, text)
}

func (r results) warnings() (list []string) {
	n := map[search.Status]int{}
	for _, t := range r.trials {
		if _, ok := r.accuracy(t.Trial); !ok {
			n[t.Status]++
		}
	}
	var left []string
	for _, s := range []search.Status{search.Diverged, search.Failed, search.Running, interrupted, search.Pending} {
		if n[s] > 0 {
			left = append(left, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	if len(left) > 0 {
		list = append(list, fmt.Sprintf("left out of %s: %s", count(len(r.trials), "trial"), strings.Join(left, ", ")))
	}
	if len(r.isas) > 1 {
		list = append(list, r.mixed())
	}
	return list
}

// mixed is the warning of several isas.
func (r results) mixed() string {
	return fmt.Sprintf("its trials ran on different instruction sets or GPUs (%s); their last digits may differ", strings.Join(r.isas, ", "))
}

// summaryTable is the table of networks that run prints.
func (r results) summaryTable() *textTable {
	t := newTable(append(r.what(), "accuracy (%)", "n")...)
	for _, p := range r.bySystem() {
		t.add(append(r.which(p.System, p.params), p.accuracy(" ± "), p.n())...)
	}
	return t
}
