package strategy

import (
	"context"
	"math/rand/v2"

	"igcsearch/search"
)

// Spent is what a strategy spent on a study, and found: means over orders of its seeds and networks.
type Spent struct {
	Trials   float64 // begun
	Epochs   float64 // trained
	Share    float64 // of the epochs of grid
	Answer   string  // label of the most frequent answer; "" if there was none
	Accuracy float64 // Replayed.Truth, in [0, 1]
	Best     float64 // share of the orders whose answer is the best network of all that is recorded
	Regret   float64 // Replayed.Regret
	Reason   string  // why the last replay ended
}

// ReplayOrders replays a strategy over so many orders. One order is the recorded one, unless the strategy is Random.
func ReplayOrders(
	ctx context.Context, decides search.Strategy, s search.Study, recorded []search.TrialState,
	o ReplayOptions, orders int,
) (Spent, error) {
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
		name := r.System.Label()
		answers[name]++
		if most := answers[sum.Answer]; answers[name] > most || answers[name] == most && name < sum.Answer {
			sum.Answer = name
		}
	}
	for _, value := range []*float64{&sum.Trials, &sum.Epochs, &sum.Share, &sum.Accuracy, &sum.Regret, &sum.Best} {
		*value /= float64(orders)
	}
	return sum, nil
}
