package store_test

import (
	"context"
	"time"

	"igcsearch/search"
	"igcsearch/store"
)

// trialEpoch is an epoch with the trial that it is of.
type trialEpoch struct {
	search.Key
	search.Epoch
}

// readTrials and its like return a part of what Read returns.
func readTrials(ctx context.Context, db *store.DB, study string) (list []search.Trial, err error) {
	r, err := db.Read(ctx, study)
	for _, t := range r.Trials {
		list = append(list, t.Trial)
	}
	return list, err
}

func readEpochs(ctx context.Context, db *store.DB, study string) (list []trialEpoch, err error) {
	r, err := db.Read(ctx, study, store.Histories)
	for _, t := range r.Trials {
		for _, e := range t.History {
			list = append(list, trialEpoch{t.Key, e})
		}
	}
	return list, err
}

func readAttempts(ctx context.Context, db *store.DB, study string) ([]store.TrialAttempt, error) {
	r, err := db.Read(ctx, study, store.Attempts)
	return r.Attempts, err
}

func readUpdated(ctx context.Context, db *store.DB, study string) (time.Time, error) {
	r, err := db.Read(ctx, study)
	return r.Updated, err
}

func readStudy(ctx context.Context, db *store.DB, study string) (search.Study, error) {
	r, err := db.Read(ctx, study)
	return r.Study, err
}
