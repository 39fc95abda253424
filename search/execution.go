package search

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// Execution are the settings of a study that say how it is run. They change no
// result, so they take no part in its fingerprint.
type Execution struct {
	// Workers is how many trials run at once; 0 leaves it to the devices, one
	// for each core of the processor.
	Workers int `toml:"workers" json:"-"`

	// The budgets stop a run at the end of an epoch; a run with a larger one goes
	// on. MaxWallTime, like "2h30m", is of one run; the others count all that is
	// recorded of the study, by any run. "" and 0 are no bound.
	MaxWallTime string `toml:"max_wall_time" json:"-"`
	// MaxTrials is of trials that have begun.
	MaxTrials int `toml:"max_trials" json:"-"`
	MaxEpochs int `toml:"max_epochs" json:"-"`
	// MaxDeviceHours is of the hours of all trainings added up, also where
	// several share a device.
	MaxDeviceHours float64 `toml:"max_device_hours" json:"-"`

	// TrialTimeLimit, like "45m", is how long one attempt at a trial may take;
	// "" is no limit.
	TrialTimeLimit string `toml:"trial_time_limit" json:"-"`
	// How often a trial is tried again after each kind of failure.
	RetryCrashed int `toml:"retry_crashed" json:"-"`
	RetryTimeout int `toml:"retry_timeout" json:"-"`
	RetryMemory  int `toml:"retry_memory" json:"-"`
	// StopAfter is how many failures in a row, all alike, stop the run; 0 is
	// never.
	StopAfter int `toml:"stop_after" json:"-"`

	// KeepCheckpoints keeps the last checkpoint of finished trials, KeepBest also
	// the one of the epoch with the best validation accuracy.
	KeepCheckpoints bool `toml:"keep_checkpoints" json:"-"`
	KeepBest        bool `toml:"keep_best" json:"-"`
	// CheckpointQuota bounds the bytes of all checkpoints of the study; those of
	// finished trials make room. 0 is no bound.
	CheckpointQuota int64 `toml:"checkpoint_quota" json:"-"`
}

// WallTime is MaxWallTime of a normalised study, 0 if there is no bound.
func (e Execution) WallTime() time.Duration { return duration(e.MaxWallTime) }

// TimeLimit is TrialTimeLimit of a normalised study, 0 if there is none.
func (e Execution) TimeLimit() time.Duration { return duration(e.TrialTimeLimit) }

// Run returns, as JSON with the keys of a study file, how the study is run:
// what is set of Execution, which Settings leaves out.
func (s Study) Run() json.RawMessage {
	how := map[string]any{}
	v := reflect.ValueOf(s.Execution)
	for f := range v.Type().Fields() {
		if value := v.FieldByIndex(f.Index); !value.IsZero() {
			how[f.Tag.Get("toml")] = value.Interface()
		}
	}
	text, err := json.Marshal(how)
	if err != nil {
		panic(err) // numbers, texts and truth values
	}
	return text
}

// SetRun sets what Run returned; what it does not name is zero.
func (s *Study) SetRun(text json.RawMessage) error {
	var how map[string]json.RawMessage
	if err := json.Unmarshal(text, &how); err != nil {
		return fmt.Errorf("how the study is run: %w", err)
	}
	s.Execution = Execution{}
	v := reflect.ValueOf(&s.Execution).Elem()
	for f := range v.Type().Fields() {
		key := f.Tag.Get("toml")
		if value := how[key]; value != nil {
			if err := json.Unmarshal(value, v.FieldByIndex(f.Index).Addr().Interface()); err != nil {
				return fmt.Errorf("how the study is run: %s: %w", key, err)
			}
		}
	}
	return nil
}

// isRunOption reports whether a field of a study affects only how it runs, not
// its results.
func isRunOption(f reflect.StructField) bool { return f.Tag.Get("json") == "-" }

func duration(text string) time.Duration {
	d, _ := time.ParseDuration(text) // Normalize has checked it, "" is 0
	return d
}

// normalize checks how a study is run.
func (e *Execution) normalize(c *checker, s Study) {
	c.check(e.Workers >= 0, "workers %d: want 0 (what the devices are fastest with) or more", e.Workers)
	for _, f := range []struct{ key, value string }{{"max_wall_time", e.MaxWallTime},
		{"trial_time_limit", e.TrialTimeLimit}} {
		d, err := time.ParseDuration(f.value)
		c.check(f.value == "" || err == nil && d > 0,
			`%s %q: want a time, like "90s", "45m" or "2h30m", or "" for no bound`, f.key, f.value)
	}
	c.check(e.MaxTrials >= 0, "max_trials %d: want 0 (no bound) or more", e.MaxTrials)
	c.check(e.MaxEpochs >= 0, "max_epochs %d: want 0 (no bound) or more", e.MaxEpochs)
	c.check(e.MaxDeviceHours >= 0 && e.MaxDeviceHours < 1e9, "max_device_hours %g: want 0 (no bound) or more",
		e.MaxDeviceHours)
	for _, f := range []struct {
		key   string
		value int
	}{{"retry_crashed", e.RetryCrashed}, {"retry_timeout", e.RetryTimeout}, {"retry_memory", e.RetryMemory}} {
		c.check(f.value >= 0 && f.value <= 1000, "%s %d: want 0 to 1000", f.key, f.value)
	}
	c.check(e.StopAfter >= 0, "stop_after %d: want 0 (never) or more", e.StopAfter)
	c.check(e.CheckpointQuota >= 0, "checkpoint_quota %d: want bytes, 0 is no bound", e.CheckpointQuota)
	c.check(!e.KeepBest || s.Validation > 0, "keep_best needs validation > 0 held-out pictures")
}
