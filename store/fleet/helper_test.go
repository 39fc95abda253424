package fleet_test

import (
	"igcsearch/search"
	"igcsearch/search/strategy"
)

// strategyOf returns the strategy that a study names.
func strategyOf(s search.Study) search.Strategy {
	decides, err := strategy.New(s)
	if err != nil {
		panic(err)
	}
	return decides
}
