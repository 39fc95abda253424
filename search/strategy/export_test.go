package strategy

import "igcsearch/search"

// Beliefs returns what "peak" believed after each round of its last decision.
func Beliefs(decides search.Strategy) (list []Belief) {
	for _, r := range decides.(*peak).rounds {
		list = append(list, r.belief)
	}
	return list
}

// Claims reports whether the answer of "peak" is a claim: that the leader is within the margin with
// the confidence of the study.
func Claims(decides search.Strategy, b Belief) bool {
	return b.Leader >= 0 && b.Within >= decides.(*peak).Confidence && b.Seeds[b.Leader] >= search.PeakSeeds &&
		b.Repeats >= minRepeats
}
