package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/search/strategy"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/store/table"
)

// Interrupted is shown for a trial that is stored as running, but whose process is gone. The next run continues it.
const Interrupted = table.Interrupted

// Results are the trials of a stored study, as commands show them.
type Results struct {
	Study search.Study
	// Label is what the study is called in figures and tables; "" is its name.
	Label string
	// Trials are sorted by rising M, L and seed, or in the order of the study's networks. They may have the status
	// Interrupted. Their History is empty unless it was asked for.
	Trials []search.TrialState
	// Planned are all trials as they are stored. A command that shows some of the Trials only leaves them as they are.
	Planned  []search.TrialState
	Outside  int                  // how many trials with epochs the study had before its extent left them out
	Dropped  int                  // how many finished trials lost their checkpoints to keep the quota
	Attempts []store.TrialAttempt // empty unless they were asked for
	ISAs     []string             // the arithmetics of finished attempts
	Models   []string             // the models of their processors or GPUs
	// Slice says which part of a study with axes the results are, like "learning_rate 0.05"; "" is the whole study.
	Slice   string
	Updated time.Time // when the study or a trial last changed

	// decides is the study's strategy, which remembers what it has computed. It is nil if From did not make the results.
	decides search.Strategy
}

// From brings a stored study into the order in which it is shown.
func From(stored store.Results) Results {
	r := Results{Study: stored.Study, Trials: slices.Clone(stored.Trials), Planned: stored.Trials,
		Outside: len(stored.Outside), Dropped: stored.Dropped,
		Attempts: stored.Attempts, Models: stored.Models, Updated: stored.Updated}
	if decides, err := strategy.New(r.Study); err == nil {
		r.decides = decides
	}
	order := map[space.System]int{}
	for i, system := range r.Study.SystemList() {
		order[system] = i
	}
	points := map[search.Point]int{}
	for i, p := range r.Study.Axes.Points() {
		points[p] = i
	}
	slices.SortFunc(r.Trials, func(a, b search.TrialState) int {
		return cmp.Or(cmp.Compare(order[a.System], order[b.System]), cmp.Compare(points[a.At], points[b.At]),
			cmp.Compare(a.Seed, b.Seed))
	})
	for _, list := range stored.ISAs {
		for isa := range strings.SplitSeq(list, ", ") {
			if isa != "" && !slices.Contains(r.ISAs, isa) {
				r.ISAs = append(r.ISAs, isa)
			}
		}
	}
	for i, t := range r.Trials {
		if t.Status == search.Running && stored.Gone[t.ID] {
			r.Trials[i].Status = Interrupted
		}
	}
	return r
}

// Network sums up the trials of one network, in a study with axes those at one point.
type Network struct {
	space.System
	At     search.Point
	Params int // of the network
	Seeds  int // trials, done or not
	// Accuracies are those of the done trials, in percent, of the study's split.
	Accuracies []float64
}

// Label names the network, and the point if the study has axes.
func (n Network) Label() string { return search.Key{System: n.System, At: n.At}.Label() }

// Accuracy is the mean with the standard deviation, in percent.
func (n Network) Accuracy() string { return MeanStd(n.Accuracies) }

// MeanStd is the mean of values with their standard deviation, as far as there are enough of them.
func MeanStd(values []float64) string {
	s := analysis.Summarize(values)
	switch s.N {
	case 0:
		return "–"
	case 1:
		return fmt.Sprintf("%.2f", s.Mean)
	}
	return fmt.Sprintf("%.2f ± %.2f", s.Mean, s.Std)
}

// N says how many trials the accuracy is of, "2 of 3" while some are missing.
func (n Network) N() string {
	if len(n.Accuracies) < n.Seeds {
		return fmt.Sprintf("%d of %d", len(n.Accuracies), n.Seeds)
	}
	return strconv.Itoa(n.Seeds)
}

// Networks sums up the trials of each network, at each point of the axes, in the order of Trials.
func (r Results) Networks() []Network {
	var list []Network
	for _, t := range r.Trials {
		if k := len(list); k == 0 || list[k-1].System != t.System || list[k-1].At != t.At {
			list = append(list, Network{System: t.System, At: t.At, Params: t.Params})
		}
		n := &list[len(list)-1]
		n.Seeds++
		if a, ok := r.Accuracy(t.Trial); ok {
			n.Accuracies = append(n.Accuracies, a)
		}
	}
	return list
}

// BlockParams are the parameters of a block of a network, in a study of pairs.
func (r Results) BlockParams(n Network) int { return n.System.BlockParams() }

// NameHeader is the header of the columns that tell one network of the study from another, for NewTable, with a column
// for each axis. In a study of pairs the parameters are those of a block, else those of the network.
func (r Results) NameHeader() []string {
	header := []string{"<network", "depth", "params"}
	if r.Study.OfPairs() {
		header = []string{"L", "M", "width", "params"}
	}
	for _, axis := range r.Study.Axes {
		header = append(header, axis.Key)
	}
	return header
}

// Name are the cells of NameHeader.
func (r Results) Name(n Network) []string {
	row := table.NewRow(r.Study, search.Trial{Key: search.Key{System: n.System}, Params: n.Params}, search.Epoch{})
	cells := []string{row.Network, strconv.Itoa(row.Depth), strconv.Itoa(row.Params)}
	if r.Study.OfPairs() {
		cells = []string{strconv.Itoa(row.Pair.L), strconv.Itoa(row.Pair.M), strconv.Itoa(row.Width),
			strconv.Itoa(row.Params)}
	}
	for _, axis := range r.Study.Axes {
		x, _ := n.At.Value(axis.Key)
		cells = append(cells, axisValue(x))
	}
	return cells
}

// axisValue is the value of a setting that is an axis, as short as it can be read back.
func axisValue(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// Accuracy is that of a done trial on the study's split, in percent.
func (r Results) Accuracy(t search.Trial) (percent float64, ok bool) {
	correct, total := t.Last.Correct(r.Study.Split)
	if t.Status != search.Done || total == 0 {
		return 0, false
	}
	return 100 * float64(correct) / float64(total), true
}

// Done counts the trials that have an accuracy.
func (r Results) Done() int {
	n := 0
	for _, t := range r.Trials {
		if _, ok := r.Accuracy(t.Trial); ok {
			n++
		}
	}
	return n
}

// TakenUp says how many attempts were interrupted and followed by another one, which is no failure; "" if none was.
// Results must have been read with the attempts.
func (r Results) TakenUp() string {
	last := map[search.Key]int{}
	for i, a := range r.Attempts {
		last[a.Key] = i
	}
	n := 0
	for i, a := range r.Attempts {
		if i < last[a.Key] && (a.Ending == search.EndedLost || a.Ending == search.EndedInterrupted) {
			n++
		}
	}
	switch n {
	case 0:
		return ""
	case 1:
		return "1 attempt was interrupted, and its trial was taken up again, which changes no result"
	}
	return fmt.Sprintf("%d attempts were interrupted, and their trials were taken up again, which changes no result", n)
}

// Counts says how many trials have which status.
func (r Results) Counts() string { return counts(r.Trials) }

func counts(trials []search.TrialState) string {
	n := map[search.Status]int{}
	for _, t := range trials {
		n[t.Status]++
	}
	var parts []string
	for _, s := range []search.Status{search.Done, search.Diverged, search.Failed, search.Running, Interrupted,
		search.Pending} {
		if n[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[s], s))
		}
	}
	return strings.Join(parts, ", ")
}

// Showing returns the results with the accuracies of a split, "" for that of the study. It is an error if none of the
// done trials was evaluated on that split.
func (r Results) Showing(split string) (Results, error) {
	if split == "" {
		return r, nil
	}
	r.Study.Split = split
	if split == search.SplitValidation && r.Study.Validation == 0 {
		return r, fmt.Errorf("%s holds out no validation pictures (validation = 0), so nothing was evaluated on them",
			r.Study.Name)
	}
	isDone := func(t search.TrialState) bool { return t.Status == search.Done }
	if r.Pictures() == 0 && slices.ContainsFunc(r.Trials, isDone) {
		return r, fmt.Errorf("no trial of %s has stored how many %s pictures it classified right", r.Study.Name, split)
	}
	return r, nil
}

// Pictures is how many pictures of the study's split gave each accuracy; 0 if there is no accuracy yet.
func (r Results) Pictures() (n int) {
	for _, t := range r.Trials {
		if _, total := t.Last.Correct(r.Study.Split); t.Status == search.Done {
			n = max(n, total)
		}
	}
	return n
}

// SplitPictures names the pictures of the accuracies: "the 10000 test pictures".
func (r Results) SplitPictures() string {
	if n := r.Pictures(); n > 0 {
		return fmt.Sprintf("the %d %s pictures", n, r.Study.Split)
	}
	return fmt.Sprintf("the %s pictures", r.Study.Split)
}

// Title is what the study is called in figures and tables: its Label or its name, with its Slice.
func (r Results) Title() string {
	title := cmp.Or(r.Label, r.Study.Name)
	if r.Slice == "" {
		return title
	}
	return title + ", " + r.Slice
}

// Caption says what the accuracies are.
func (r Results) Caption() string {
	return fmt.Sprintf("%s: accuracy on %s of %s, mean ± standard deviation over n seeds%s",
		r.Title(), r.SplitPictures(), DatasetLabel(r.Study.Dataset), r.draws()+r.trainedIn())
}

// draws says after "over n seeds" what differs from seed to seed beside the weights and the order of the pictures.
func (r Results) draws() string {
	switch {
	case r.Study.SplitPerSeed && r.Study.Validation > 0:
		return ", each with its own draw of training and validation pictures"
	case r.Study.SplitPerSeed:
		return ", each with its own draw of training pictures"
	}
	return ""
}

// trainedIn says after draws in which precision they were trained, if it is not float32.
func (r Results) trainedIn() string {
	switch r.Study.Precision {
	case search.PrecisionBF16:
		return ", trained in bfloat16"
	case search.PrecisionAMX:
		return ", trained in bfloat16 (sums in the order of AMX)"
	case search.PrecisionTF32:
		return ", trained in TensorFloat-32"
	}
	return ""
}

// DatasetLabel names a data set for people. Synthetic pictures are called so wherever their numbers stand.
func DatasetLabel(name string) string {
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

// Warn writes on stderr what the results leave out or mix.
func (r Results) Warn(stderr io.Writer) { Warn(stderr, r.Study.Name, r.Warnings()) }

// Warn writes warnings about a study.
func Warn(stderr io.Writer, study string, list []string) {
	for _, text := range list {
		fmt.Fprintln(stderr, Warning(study, text))
	}
}

// Warning is one line about a study.
func Warning(study, text string) string {
	return fmt.Sprintf("igcsearch: warning: %s: %s", study, text)
}

// AllDiverged says what to try if all trainings ended without a result and one diverged or more; else it is "".
func (r Results) AllDiverged() string {
	n := map[search.Status]int{}
	rate := r.Study.At(r.Study.Axes.Points()[0]).LearningRate // the smallest
	for _, t := range r.Trials {
		n[t.Status]++
	}
	switch {
	case n[search.Diverged] == 0 || n[search.Diverged]+n[search.Failed] < len(r.Trials):
		return ""
	case n[search.Failed] > 0:
		return fmt.Sprintf("none of its trainings has a result, %s: try a learning_rate below %g, under another name",
			counts(r.Trials), rate)
	}
	all := "all its trainings"
	if len(r.Trials) == 1 {
		all = "its only training"
	}
	return fmt.Sprintf("%s diverged, which means that the loss was not finite: try a learning_rate below %g, "+
		"under another name", all, rate)
}

// Warnings says what the results leave out or mix, and whether halving may have left out the best.
func (r Results) Warnings() (list []string) {
	if text := r.AllDiverged(); text != "" {
		return []string{text}
	}
	left := slices.DeleteFunc(slices.Clone(r.Trials), func(t search.TrialState) bool {
		_, ok := r.Accuracy(t.Trial)
		return ok || t.Status == search.Done
	})
	if len(left) > 0 {
		list = append(list, fmt.Sprintf("left out of %s: %s", Count(len(r.Trials), "trial"), counts(left)))
	}
	if len(r.ISAs) > 1 {
		list = append(list, r.Mixed())
	}
	for _, rung := range r.Agreement().Crossed() {
		list = append(list, fmt.Sprintf("the order of the networks at %v clearly differs from that at the end, so that"+
			" halving may have dropped better ones: a larger halving.min_epochs, or strategy grid, trains more of them",
			rung))
	}
	return list
}

// Mixed is the warning of several ISAs.
func (r Results) Mixed() string {
	return fmt.Sprintf("its trials ran on different instruction sets or GPUs (%s); their last digits may differ",
		strings.Join(r.ISAs, ", "))
}

// AtChance warns of trainings that learned nothing: their accuracy does not exceed that of guessing by more than three
// standard deviations.
func (r Results) AtChance(classes int) []string {
	const named = 5
	var list []string
	total := 0
	for _, t := range r.Trials {
		correct, n := t.Last.Correct(r.Study.Split)
		if t.Status != search.Done || n == 0 {
			continue
		}
		p := 1 / float64(classes)
		if float64(correct) > float64(n)*p+3*math.Sqrt(float64(n)*p*(1-p)) {
			continue
		}
		total++
		if len(list) < named {
			list = append(list, t.Key.String())
		}
	}
	if total == 0 {
		return nil
	}
	if total > named {
		list = append(list, "…")
	}
	return []string{fmt.Sprintf("%s of %d ended at chance, %.3g %% with %d classes: %s: try more epochs or pictures,"+
		" or another learning rate",
		Count(total, "training"), len(r.Trials), 100/float64(classes), classes, strings.Join(list, ", "))}
}

// SummaryTable has a row for each network.
func (r Results) SummaryTable() *Table {
	t := NewTable(append(r.NameHeader(), "accuracy (%)", "n")...)
	for _, n := range r.Networks() {
		t.Add(append(r.Name(n), n.Accuracy(), n.N())...)
	}
	return t
}

// Decide asks the study's strategy what it wants next.
func (r Results) Decide() search.Decision {
	decides := r.decides
	if decides == nil {
		var err error
		if decides, err = strategy.New(r.Study); err != nil { // a newer igcsearch stored the study
			return search.Decision{Reason: err.Error()}
		}
	}
	trials := slices.Clone(r.Trials)
	for i := range trials {
		if trials[i].Status == Interrupted {
			trials[i].Status = search.Pending
		}
	}
	return decides.Decide(r.Study, trials)
}

// Ended reports whether the search has ended: no trial runs, and the strategy wants none of those that are left.
func (r Results) Ended() bool {
	if slices.ContainsFunc(r.Trials, func(t search.TrialState) bool { return t.Status == search.Running }) {
		return false
	}
	d := r.Decide()
	return len(d.Next) == 0 && d.Reason != ""
}

// Saved says how many trainings a strategy has needed of those of grid. Before the search has ended, nobody knows how
// many it will need. It is "" for grid, which trains all.
func (r Results) Saved() string {
	if r.Study.Strategy == "" {
		return ""
	}
	whole, begun, epochs, all := 0, 0, 0, 0
	for _, t := range r.Trials {
		epochs, all = epochs+t.Epoch, all+t.Epochs
		switch {
		case t.Status.Finished() || t.Status == search.Failed:
			whole++
		case t.Epoch > 0:
			begun++
		}
	}
	if !r.Ended() {
		return fmt.Sprintf("%d of at most %s so far", whole, Count(len(r.Trials), "training"))
	}
	text := "all " + Count(len(r.Trials), "training") + " were done" // by this strategy, or by another one before
	switch left := len(r.Trials) - whole - begun; {
	case left == 1:
		text = fmt.Sprintf("1 of %s was not needed", Count(len(r.Trials), "training"))
	case left > 0:
		text = fmt.Sprintf("%d of %s were not needed", left, Count(len(r.Trials), "training"))
	case begun > 0:
		text = "all " + Count(len(r.Trials), "training") + " were begun"
	}
	if begun > 0 {
		text += fmt.Sprintf(", and %d ended early: %.0f %% of the epochs of grid were trained", begun,
			100*float64(epochs)/float64(all))
	}
	return text
}

// RaceRounds are the finished rounds of the race that a study is. A study with another strategy has none. A race is of
// all planned trials, also where the results show only some of them.
func (r Results) RaceRounds() []strategy.Round {
	if r.Study.Strategy != search.StrategyRace {
		return nil
	}
	return strategy.Rounds(r.Study, r.Planned)
}

// Belief is what peak believes after its last round. ok is false if none has ended, and for other strategies.
func (r Results) Belief() (b strategy.Belief, ok bool) {
	return strategy.Believe(r.decides, r.Study, r.Planned)
}

// Agreement says how the order of networks at the rungs of halving agrees with that at the end. A study with another
// strategy has no rungs. It needs the History of the trials.
func (r Results) Agreement() strategy.Agreement {
	if r.Study.Strategy != search.StrategyHalving {
		return strategy.Agreement{}
	}
	return strategy.Agree(r.Study, r.Planned)
}

// DroppedAfter is how many seeds the networks had that a race dropped.
func DroppedAfter(rounds []strategy.Round) map[space.System]int {
	seeds := map[space.System]int{}
	for _, round := range rounds {
		for _, system := range round.Dropped {
			seeds[system] = round.Seeds
		}
	}
	return seeds
}
