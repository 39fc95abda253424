package strategy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"

	"igcsearch/search"
	"igcsearch/search/posterior"
	"igcsearch/space"
)

// peak trains every network from one seed. Then it asks a model of the true means (package
// posterior) after each round for the leader: the network that is within a margin of the best with
// the highest probability. If this probability is high enough, the leader is the answer. Otherwise
// the leader and its nearest rivals get one more seed each.
//
// The rounds are replayed from the first one. A round uses only trials that it or an earlier round
// has asked for, so neither the order in which trials end nor the number of workers changes an
// answer.
//
// A network is out of the search if more of its trials diverged than have an accuracy, and nothing is
// claimed of it if as many did. Its accuracies stay in the model. A failed trial says nothing. If it
// leaves a network without an accuracy, the network's next seed comes before all others.
type peak struct {
	search.Peak

	mu     sync.Mutex
	model  posterior.Model
	of     []string // the networks that the model is of
	rounds []peakRound
}

// minRepeats is the smallest number of trials beyond the first of each network, in the whole study,
// with which peak claims anything. With fewer the spread over seeds is hardly known.
const minRepeats = 9

// least is the expected gain, in points, below which a rival is not worth a training, once there are
// enough for a claim.
const least = 1e-3

// peakRound is a round with what it was decided from.
type peakRound struct {
	results []posterior.Result
	left    []bool // whether a network has another seed
	belief  Belief
	want    []int // the networks that get one more seed
}

// Belief is what the strategy "peak" believes after a round.
type Belief struct {
	Systems []space.System // of the study
	// Large says that the model of a large space was asked. Its probabilities were too high in
	// simulated spaces of several dimensions.
	Large bool
	// Leader is the index of the answer in Systems, or −1 if no network can be the answer.
	Leader int
	// Within is the probability that Leader is within Margin of the best, search.Peak.Margin. Bound is
	// the number of points that it loses to the best at most, with a probability of 95 %.
	Margin, Within, Bound float64
	// Sure says that Within is the confidence that was asked for, of enough trainings. The search ends
	// then. Unless Large is set, it claims that Leader is within Margin of the best.
	Sure bool
	// Best has the probability of each network that it is the best.
	Best []float64
	// Concave is the weight of the concave curves in the model, or NaN if the model is of no curve.
	Concave         float64
	Seeds, Diverged []int // the numbers of accuracies and of diverged trials of each network
	Repeats         int   // the number of accuracies beyond the first of each network
	Trials          int   // the number of trials that were asked for so far
	// Out are the networks that are out of the search, because more of their trials diverged than have
	// an accuracy.
	Out []space.System
	// Unknown are the networks of which all trials failed. It is empty in a large space.
	Unknown []space.System
	unseen  []int // the networks of a small space without an accuracy, whose next seed is asked for
}

// Decide implements search.Strategy.
func (p *peak) Decide(s search.Study, trials []search.TrialState) search.Decision {
	_, d := p.replay(s, trials)
	return d
}

// answer returns the leader, whose trials are fewer than those of a rival at times, and whether
// something is claimed of it.
func (p *peak) answer(s search.Study, trials []search.TrialState) (a Answer, claim bool) {
	b, _ := p.replay(s, trials)
	if b.Leader < 0 || b.Systems == nil {
		return a, false
	}
	leader := sorted(trials)[b.Leader]
	scores, _ := p.scores(s, trials, leader, len(leader.trials))
	sum := 0.
	for _, r := range scores {
		sum += r.Score / 100
	}
	return Answer{leader.system, sum / float64(len(scores)), len(scores)}, b.Sure && !b.Large
}

// Believe returns what a strategy that New returned for "peak" believes after the last round that has
// ended, of the trials of a normalised study. ok is false if none has, and for other strategies.
func Believe(strategy search.Strategy, s search.Study, trials []search.TrialState) (b Belief, ok bool) {
	p, ok := strategy.(*peak)
	if !ok {
		return b, false
	}
	b, _ = p.replay(s, trials)
	return b, b.Systems != nil
}

// replay repeats the rounds from the recorded trials. It returns the belief after the last round
// that has ended, and the decision.
func (p *peak) replay(s search.Study, trials []search.TrialState) (b Belief, d search.Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := sorted(trials)
	if len(all) == 0 {
		return b, search.Decision{Reason: "there are no trials"}
	}
	large := len(all) > p.Systems
	p.choose(s, trials, all, large)
	asked := make([]int, len(all)) // the number of trials of each network
	begin := p.first(trials, all, large)
	for _, i := range begin {
		asked[i] = 1
	}
	for n := 0; ; n++ {
		for i, a := range all {
			d.Next = append(d.Next, a.train(trials, asked[i], s.Epochs)...)
		}
		if len(d.Next) > 0 || !p.ended(trials, all, asked) {
			slices.SortStableFunc(d.Next, func(x, y search.Step) int { return cmp.Compare(x.Trial, y.Trial) })
			return b, d
		}
		round := p.round(n, s, trials, all, asked)
		b = round.belief
		if reason := p.reason(&b, len(round.want)); reason != "" {
			return b, search.Decision{Reason: reason}
		}
		for _, i := range round.want {
			asked[i]++
		}
	}
}

// sorted returns the networks in an order of their own, by rising M. The draws of a model depend on
// the order of its networks, and trials come in different ones: run begins the longest, and a study
// that has grown stores new networks last.
func sorted(trials []search.TrialState) []network {
	all := networks(trials)
	slices.SortFunc(all, func(a, b network) int {
		if c := slices.CompareFunc(a.system.Stages[:], b.system.Stages[:], space.ComparePairs); c != 0 {
			return c
		}
		return cmp.Compare(a.system.String(), b.system.String())
	})
	return all
}

// first returns the networks of the first round: all of them, or some that cover a large space.
func (p *peak) first(trials []search.TrialState, all []network, large bool) (list []int) {
	if large {
		return design(features(trials, all))
	}
	for i := range all {
		list = append(list, i)
	}
	return list
}

// ended reports whether all trials that were asked for have ended.
func (p *peak) ended(trials []search.TrialState, all []network, asked []int) bool {
	for i, a := range all {
		for _, t := range a.trials[:min(asked[i], len(a.trials))] {
			if !final(&trials[t]) {
				return false
			}
		}
	}
	return true
}

// choose makes the model of the study's networks.
func (p *peak) choose(s search.Study, trials []search.TrialState, all []network, large bool) {
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = a.system.String()
	}
	if p.model != nil && slices.Equal(names, p.of) {
		return
	}
	p.of, p.rounds = names, nil
	x := features(trials, all)
	switch m, ok := curve(s, all); {
	case large:
		p.model = posterior.NewSurface(x)
	case !p.Structure || len(x[0]) == 0:
		p.model = posterior.NewFree(len(all), posterior.Quick)
	case ok:
		p.model = posterior.NewCurve(m, posterior.Quick)
	default:
		p.model = posterior.NewField(x, posterior.Quick)
	}
}

// curve returns log2 M of every network. ok is false if they are not the pairs of one budget, or
// have fewer than three different M.
func curve(s search.Study, all []network) (x []float64, ok bool) {
	if !s.OfPairs() {
		return nil, false
	}
	different := map[int]bool{}
	smallest, largest := math.MaxInt, 0
	for _, a := range all {
		pair := a.system.Pair()
		params := a.system.BlockParams()
		smallest, largest = min(smallest, params), max(largest, params)
		different[pair.M] = true
		x = append(x, math.Log2(float64(pair.M)))
	}
	return x, len(different) >= 3 && space.SameBudget(smallest, largest)
}

// scores returns the accuracies of the first trials of a network, and how many of them diverged.
func (p *peak) scores(s search.Study, trials []search.TrialState, a network, asked int) (list []posterior.Result,
	diverged int) {
	for _, t := range a.trials[:min(asked, len(a.trials))] {
		if trials[t].Status == search.Diverged {
			diverged++
		} else if v, ok := accuracy(&trials[t], s.DecidingSplit(), s.Epochs); ok {
			list = append(list, posterior.Result{Seed: trials[t].Seed, Score: 100 * v})
		}
	}
	return list, diverged
}

// round returns the n-th round, of trials that have ended. It remembers the rounds: the same
// results give the same belief.
func (p *peak) round(n int, s search.Study, trials []search.TrialState, all []network, asked []int) peakRound {
	var r peakRound
	r.belief.Seeds = make([]int, len(all))
	for i, a := range all {
		scores, diverged := p.scores(s, trials, a, asked[i])
		for _, score := range scores {
			score.Network = i
			r.results = append(r.results, score)
		}
		r.belief.Diverged = append(r.belief.Diverged, diverged)
		r.belief.Seeds[i] = len(scores)
		r.belief.Repeats += max(0, len(scores)-1)
		r.belief.Systems = append(r.belief.Systems, a.system)
		r.belief.Trials += asked[i]
		r.left = append(r.left, asked[i] < len(a.trials))
	}
	if n < len(p.rounds) {
		if known := p.rounds[n]; slices.Equal(known.results, r.results) &&
			slices.Equal(known.belief.Diverged, r.belief.Diverged) && slices.Equal(known.left, r.left) &&
			known.belief.Trials == r.belief.Trials {
			return known
		}
	}
	r.judge(p)
	p.rounds = append(p.rounds[:min(n, len(p.rounds))], r)
	return r
}

// judge sets what is believed after a round, and which networks get one more seed.
func (r *peakRound) judge(p *peak) {
	b, left, large := &r.belief, r.left, len(r.left) > p.Systems
	b.Leader, b.Concave, b.Margin, b.Large = -1, math.NaN(), p.Margin, large
	may := make([]bool, len(left)) // be the answer, now or later
	for i := range may {
		if may[i] = b.Diverged[i] <= b.Seeds[i]; !may[i] {
			b.Out = append(b.Out, b.Systems[i])
		}
		switch failed := b.Diverged[i]+b.Seeds[i] == 0; {
		case failed && left[i] && !large:
			b.unseen = append(b.unseen, i)
		case failed && !large:
			b.Unknown = append(b.Unknown, b.Systems[i])
		}
	}
	post := p.model.Given(r.results)
	if post == nil || !slices.Contains(may, true) { // nothing is known
		r.want = b.unseen
		for i := range left {
			if large && may[i] && left[i] && len(r.want) < p.room(b) {
				r.want = append(r.want, i)
			}
		}
		return
	}
	b.Best, b.Concave = post.Best(may), post.Concave
	within, mean := post.Within(p.Margin, may), post.Mean()
	for i := range left {
		if !may[i] || b.Seeds[i] == 0 {
			continue
		}
		higher := func(v []float64) bool { return b.Leader < 0 || v[i] > v[b.Leader] }
		if large && higher(mean) || !large && (higher(within) || within[i] == within[b.Leader] && higher(mean)) {
			b.Leader = i
		}
	}
	gain := slices.Clone(b.Best)
	if b.Leader >= 0 {
		b.Within = within[b.Leader]
		_, b.Bound = post.Regret(b.Leader, may, 0.05)
		if !large {
			gain = post.Improvement(b.Leader)
		}
		gain[b.Leader] = math.Inf(1) // the leader comes first
	}
	b.Sure = b.Within >= p.Confidence && b.lacks() == ""
	if len(b.unseen) > 0 {
		r.want = b.unseen
		return
	}
	lacking := b.lacks() != ""
	for j := range left {
		if may[j] && left[j] && (gain[j] > least || lacking) {
			r.want = append(r.want, j)
		}
	}
	slices.SortStableFunc(r.want, func(i, j int) int {
		return cmp.Or(cmp.Compare(gain[j], gain[i]), cmp.Compare(mean[j], mean[i]))
	})
	r.want = r.want[:min(len(r.want), p.room(b))]
}

// room returns the number of networks that get one more seed after a round, if all have an accuracy.
func (p *peak) room(b *Belief) int {
	n := p.Round(len(b.Seeds))
	if b.Large {
		n = min(n, max(0, p.Trainings-b.Trials))
	}
	return n
}

// lacks says what else the model needs, in words that follow on the answer, until it is believed. It
// is "" if that is nothing.
func (b *Belief) lacks() string {
	if b.Leader < 0 {
		return "no network has an accuracy"
	}
	switch seeds, diverged := b.Seeds[b.Leader], b.Diverged[b.Leader]; {
	case len(b.unseen) > 0:
		return "some networks have no accuracy yet"
	case diverged >= seeds:
		return "as many of its trials diverged as have an accuracy"
	case seeds < search.PeakSeeds:
		return fmt.Sprintf("%d seeds are needed", search.PeakSeeds)
	case b.Repeats < minRepeats:
		return fmt.Sprintf("%d repeat a network, %d are needed", b.Repeats, minRepeats)
	}
	return ""
}

// reason says why the search ends with what it believes. It is "" if more trials are wanted.
func (p *peak) reason(b *Belief, wanted int) string {
	if b.Leader < 0 {
		if wanted > 0 {
			return ""
		}
		return "no network was trained to the end"
	}
	if !b.Sure && wanted > 0 {
		return ""
	}
	text := b.String()
	if b.Large {
		return fmt.Sprintf("after %d trainings %s; nothing is claimed of a space this large", b.Trials, text)
	}
	if b.Within < p.Confidence {
		text = fmt.Sprintf("no trial is left that could decide: %s; %g was asked for", text, p.Confidence)
	} else if !b.Sure {
		text = fmt.Sprintf("too few trainings for a claim: %s; %s", text, b.lacks())
	}
	if len(b.Out) > 0 {
		text += fmt.Sprintf("; left out of the search because their trials diverged: %s", labels(b.Out))
	}
	if len(b.Unknown) > 0 {
		text += fmt.Sprintf("; nothing is known of %s, whose trials failed", labels(b.Unknown))
	}
	if n := b.Diverged[b.Leader]; n > 0 {
		text += fmt.Sprintf("; %d of its trials diverged and are left out", n)
	}
	if b.Concave < posterior.HardlyConcave {
		weight := fmt.Sprintf("%.0f %%", 100*b.Concave)
		if b.Concave < 0.005 {
			weight = "less than 1 %"
		}
		text += fmt.Sprintf("; the concave curves of the model hardly fit, with %s of its weight", weight)
	}
	return text
}

func (b *Belief) String() string {
	if b.Leader < 0 {
		return "no network has an accuracy"
	}
	name, n, of := b.Systems[b.Leader].Label(), len(b.Systems)-len(b.Out), seedsOf(b.Seeds[b.Leader])
	if b.Large {
		return fmt.Sprintf("%s has the highest mean of %d networks under the model, of %s", name, n, of)
	}
	return fmt.Sprintf("%s is within %g points of the best of %d with probability %s under the model, of %s; it "+
		"loses at most %.2f points (95 %% bound)", name, b.Margin, n, probability(b.Within), of, b.Bound)
}

// probability returns a probability with two digits, which never say more than it is.
func probability(p float64) string {
	if p > 0.99 {
		return "above 0.99"
	}
	return fmt.Sprintf("%.2f", math.Floor(100*p+1e-9)/100)
}

func seedsOf(n int) string {
	if n == 1 {
		return "1 seed"
	}
	return fmt.Sprintf("%d seeds", n)
}
