package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/space"
)

// cell is the flags for one training of a study: a pair or another network, and
// a seed.
type cell struct {
	pair   pair
	system string
	seed   int
}

func addCell(cmd *cobra.Command, c *cell, what string) {
	cmd.Flags().Var(&c.pair, "pair", "the pair "+what+", like 40x2")
	cmd.Flags().StringVar(&c.system, "system", "", "the `NETWORK` "+what+", like IGC-L24M2, in place of a pair")
	cmd.Flags().IntVar(&c.seed, "seed", 0, "its seed, 0 or more")
}

// check refuses flags that name no network; verb says what is to be done to it.
func (c cell) check(verb string) error {
	switch {
	case c.pair.Pair == space.Pair{} && c.system == "":
		return usageError{fmt.Errorf("--pair is missing: which network shall be %s? like --pair 40x2, or --system IGC-L24M2", verb)}
	case c.pair.Pair != space.Pair{} && c.system != "":
		return usageError{errors.New("--pair and --system: want one of them")}
	case c.seed < 0:
		return usageError{fmt.Errorf("--seed %d: want 0 or more", c.seed)}
	}
	return nil
}

// of returns the network that the flags mean in a study: variant and depth are
// the study's where they are not said.
func (c cell) of(study search.Study) (space.System, error) {
	system := space.PairSystem(c.pair.Pair)
	if c.system != "" {
		var err error
		if system, err = space.ParseSystem(c.system); err != nil {
			return system, usageError{err}
		}
	}
	system.Variant = cmp.Or(system.Variant, study.Variant)
	if system.Depth == 0 && len(study.Depths) > 0 {
		if len(study.Depths) > 1 {
			return system, usageError{fmt.Errorf("%s has the depths %v: say which, like --system %s-D%d", study.Name, study.Depths, system, study.Depths[0])}
		}
		system.Depth = study.Depths[0]
	}
	return system, nil
}
