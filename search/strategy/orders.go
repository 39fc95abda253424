package strategy

import (
	"context"
	"math/rand/v2"

	"igcsearch/search"
)

// Spent says how much a strategy would have trained in a recorded study, and what it would have
// found. Its numbers are means over several orders of the seeds and networks.
type Spent struct {
	Trials   float64 // the number of trials that would have begun
	Epochs   float64 // the number of epochs that would have been trained
	Share    float64 // Epochs divided by the epochs of grid
	Answer   string  // the label of the most frequent answer, or "" if there was none
	Accuracy float64 // Replayed.Truth, in [0, 1]
	Best     float64 // the share of the orders whose answer is the best recorded network
	Regret   float64 // Replayed.Regret
	Claims   float64 // the share of the orders that ended with a claim, Replayed.Claim
	Wrong    float64 // the share of the orders whose claim is wrong, by the means of the record
	Reason   string  // the reason for which the last replay ended
}

// ReplayOrders replays a strategy over a number of random orders. If it is 1, the order is the
// recorded one, unless the strategy is Random. It returns an error if Replay does or ctx ends.
func ReplayOrders(ctx context.Context, decides search.Strategy, s search.Study, recorded []search.TrialState,
	o ReplayOptions, orders int) (Spent, error) {
	var sum Spent
	answers := map[string]int{}
	for i := range orders {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		trials := recorded
		if orders > 1 || decides == Random() {
			trials = Shuffle(recorded, rand.New(rand.NewPCG(uint64(i), 0)))
		}
		r, err := Replay(decides, s, trials, o)
		if err != nil {
			return sum, err
		}
		all, err := Replay(grid{}, s, trials, ReplayOptions{Workers: len(trials)})
		if err != nil {
			return sum, err
		}
		sum.Share += float64(r.Epochs) / float64(all.Epochs)
		sum.Trials += float64(r.Begun)
		sum.Epochs += float64(r.Epochs)
		sum.Accuracy += r.Truth
		sum.Regret += r.Regret
		sum.Reason = r.Reason
		if r.Answer.Trials == 0 {
			continue
		}
		if r.Regret == 0 {
			sum.Best++
		}
		if r.Claim {
			sum.Claims++
			if 100*r.Regret > s.Peak.Margin {
				sum.Wrong++
			}
		}
		name := r.System.Label()
		answers[name]++
		if most := answers[sum.Answer]; answers[name] > most || answers[name] == most && name < sum.Answer {
			sum.Answer = name
		}
	}
	for _, value := range []*float64{&sum.Trials, &sum.Epochs, &sum.Share, &sum.Accuracy, &sum.Regret, &sum.Best, &sum.Claims,
		&sum.Wrong} {
		*value /= float64(orders)
	}
	return sum, nil
}
