package search

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"
)

// DefaultCheckpointQuota is the default of Execution.CheckpointQuota, 1 GiB.
const DefaultCheckpointQuota = 1 << 30

// Execution holds the settings that say how a study is run. They change no result, so Settings and
// Fingerprint leave them out.
type Execution struct {
	// Workers is the number of trials that run at once in one process. With 0 the devices decide;
	// the CPU gets one worker for each core.
	Workers int `toml:"workers" json:"-"`

	// MaxWallTime, for example "2h30m", is the first of four budgets, and counts the time of one
	// run. The others count everything that is recorded of the study, by any run. A spent budget
	// stops a run at the end of an epoch; a run with a larger budget can continue the study. "" and
	// 0 mean no bound.
	MaxWallTime string `toml:"max_wall_time" json:"-"`
	// MaxTrials is a budget for the trials that have begun.
	MaxTrials int `toml:"max_trials" json:"-"`
	// MaxEpochs is a budget for the recorded epochs of all trials.
	MaxEpochs int `toml:"max_epochs" json:"-"`
	// MaxDeviceHours is a budget for the hours of all trainings added up, even if several share a
	// device.
	MaxDeviceHours float64 `toml:"max_device_hours" json:"-"`

	// TrialTimeLimit, for example "45m", is the longest time of one attempt. "" means no limit.
	TrialTimeLimit string `toml:"trial_time_limit" json:"-"`
	// RetryCrashed, RetryTimeout and RetryMemory are how often a trial is tried again after
	// FailedCrashed, FailedTimeout and FailedMemory.
	RetryCrashed int `toml:"retry_crashed" json:"-"`
	RetryTimeout int `toml:"retry_timeout" json:"-"`
	RetryMemory  int `toml:"retry_memory" json:"-"`
	// StopAfter stops the run after so many trainings in a row that fail in the same way. 0 means
	// never.
	StopAfter int `toml:"stop_after" json:"-"`

	// KeepCheckpoints keeps the last checkpoint of finished trials, for their weights. KeepBest also
	// keeps that of the epoch with the best validation accuracy.
	KeepCheckpoints bool `toml:"keep_checkpoints" json:"-"`
	KeepBest        bool `toml:"keep_best" json:"-"`
	// CheckpointQuota is the largest size in bytes of all checkpoints of the study. Checkpoints of
	// finished trials are removed to keep it. If those of the other trials alone are larger, an epoch
	// is not stored, unless the bound is the default: nobody has asked for it. 0 means no bound.
	CheckpointQuota int64 `toml:"checkpoint_quota" json:"-"`
}

// WallTime returns MaxWallTime of a normalised study, or 0 if there is no bound.
func (e Execution) WallTime() time.Duration { return duration(e.MaxWallTime) }

// TimeLimit returns TrialTimeLimit of a normalised study, or 0 if there is no limit.
func (e Execution) TimeLimit() time.Duration { return duration(e.TrialTimeLimit) }

// Run returns the settings of Execution that are not zero, as JSON with the keys of a study file.
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
		panic(err) // JSON can represent every number, text and truth value
	}
	return text
}

// SetRun sets Execution from the JSON that Run returned. Settings that the JSON leaves out become
// zero.
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
	d, _ := time.ParseDuration(text) // Normalize has checked the text; "" gives 0
	return d
}

// normalize checks how the study s is run.
func (e *Execution) normalize(c *checker, s Study) {
	c.check(e.Workers >= 0, "workers %d: want 0 (what the devices are fastest with) or more", e.Workers)
	for _, f := range []struct{ key, value string }{
		{"max_wall_time", e.MaxWallTime}, {"trial_time_limit", e.TrialTimeLimit},
	} {
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
