package strategy_test

import (
	"testing"

	"igcsearch/search"
)

func budgetStudy() search.Study {
	s := search.Default()
	s.Name, s.Dataset, s.Budget = "some", "cifar100", 4672
	return s
}

func normal(t *testing.T, s search.Study) search.Study {
	t.Helper()
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
