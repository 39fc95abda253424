package main

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/space"
)

// trialFlags name one trial of a study: a pair or another network, and a seed.
type trialFlags struct {
	pair   pair
	system string
	at     point
	seed   int
}

func addTrial(cmd *cobra.Command, t *trialFlags, what string) {
	cmd.Flags().Var(&t.pair, "pair", "the pair "+what+", like 40x2")
	cmd.Flags().StringVar(&t.system, "system", "", "the `NETWORK` "+what+", like IGC-L24M2, in place of a pair")
	cmd.Flags().Var(&t.at, "at", "where the study has lists of settings: its values, like learning_rate=0.05")
	cmd.Flags().IntVar(&t.seed, "seed", 0, "its seed, 0 or more")
}

// check refuses flags that name no network; verb says what the command does with it.
func (t trialFlags) check(verb string) error {
	switch {
	case t.pair.Pair == space.Pair{} && t.system == "":
		err := fmt.Errorf("--pair is missing: which network to %s? Give one like --pair 40x2 or --system IGC-L24M2",
			verb)
		return usageError{err}
	case t.pair.Pair != space.Pair{} && t.system != "":
		return usageError{errors.New("--pair and --system: give one of them")}
	case t.seed < 0:
		return usageError{fmt.Errorf("--seed %d: want 0 or more", t.seed)}
	}
	return nil
}

// key returns the trial of a study that the flags name. The study says variant and depth where they do not.
func (t trialFlags) key(study search.Study) (search.Key, error) {
	k := search.Key{System: space.PairSystem(t.pair.Pair), Seed: t.seed}
	if t.system != "" {
		var err error
		if k.System, err = space.ParseSystem(t.system); err != nil {
			return k, usageError{err}
		}
	}
	k.System.Variant = cmp.Or(k.System.Variant, study.Variant)
	if k.System.Depth == 0 && len(study.Depths) > 0 {
		if len(study.Depths) > 1 {
			err := fmt.Errorf("%s has the depths %v: give one, like --system %s-D%d",
				study.Name, study.Depths, k.System, study.Depths[0])
			return k, usageError{err}
		}
		k.System.Depth = study.Depths[0]
	}
	var err error
	k.At, err = t.at.of(study)
	return k, err
}

// job returns a job for a trial of a study, at the point of the trial.
func job(study search.Study, key search.Key) search.Job {
	return search.Job{Study: study.At(key.At), Key: key}
}

// seeds is a flag for a list of seeds, "0,2".
type seeds []int

func (s *seeds) String() string {
	texts := make([]string, len(*s))
	for i, n := range *s {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}

func (s *seeds) Type() string { return "N,..." }

func (s *seeds) Set(text string) error {
	*s = nil
	for one := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(one))
		if err != nil || n < 0 {
			return errors.New("want seeds, like 0,2")
		}
		*s = append(*s, n)
	}
	return nil
}
