// Package fleet lets workers on other machines work on the studies of a
// database: a Coordinator in the one process that opens it, and a Client in each
// worker, which is the Desk of its search.Runner. They speak JSON over HTTP.
//
// A request can be sent again at any time: a worker chooses its own number and
// the token of each attempt, and what comes a second time changes nothing. So
// either side may die, and the network lose or delay what it likes. A worker
// that cannot reach the coordinator trains on; what it has to report lies in its
// outbox, a folder, until it can be delivered: by the worker, or by the
// coordinator if the worker is gone.
//
// Address and secret of a coordinator are in an access file (access.go), which
// only its owner can read.
package fleet

import (
	"encoding/json"
	"errors"
	"fmt"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// protocol is the version of what this file defines.
const protocol = 1

// The paths of a coordinator. All but pathSnapshot take a POST of JSON; all want
// the token of the access file.
const (
	pathPlan     = "/v1/plan"
	pathJoin     = "/v1/join"
	pathBeat     = "/v1/beat"
	pathClaim    = "/v1/claim"
	pathEpoch    = "/v1/epoch"
	pathEnd      = "/v1/end"
	pathLeave    = "/v1/leave"
	pathSnapshot = "/v1/snapshot" // GET, a copy of the database
)

// The largest bodies, in bytes. That of an epoch holds a checkpoint, three
// numbers of four bytes for each parameter of the network.
const (
	maxBody      = 1 << 20
	maxPlanBody  = 64 << 20
	maxEpochBody = 1 << 30
)

// The kinds of errors that a coordinator answers with.
const (
	kindToken      = "token"      // not that of the access file
	kindStranger   = "stranger"   // the worker has to join first
	kindRefused    = "refused"    // the worker, for good: another program, other pictures
	kindSuperseded = "superseded" // search.ErrSuperseded
	kindInvalid    = "invalid"    // it makes no sense, and would make none later
	kindTrouble    = "trouble"    // of the coordinator; it may work later
)

// problem is an error as it is sent.
type problem struct {
	Kind  string `json:"kind"`
	Error string `json:"error"`
}

// study is a search.Study with what its own JSON leaves out.
type study struct {
	Settings json.RawMessage `json:"settings"`
	Title    string          `json:"title"`
	Run      json.RawMessage `json:"run"`
}

func sentStudy(s search.Study) *study { return &study{s.Settings(), s.Title, s.Run()} }

func (s *study) received() (got search.Study, err error) {
	if s == nil || len(s.Settings) == 0 || len(s.Run) == 0 {
		return got, errors.New("a study is missing")
	}
	if err := json.Unmarshal(s.Settings, &got); err != nil {
		return got, fmt.Errorf("the study's settings: %w", err)
	}
	got.Title = s.Title
	return got, got.SetRun(s.Run)
}

type trial struct {
	ID           int64          `json:"id,omitempty"`
	System       string         `json:"system"`
	Seed         int            `json:"seed"`
	Status       search.Status  `json:"status"`
	Epoch        int            `json:"epoch"`
	Epochs       int            `json:"epochs"`
	MultiplyAdds int64          `json:"multiply_adds"`
	Params       int            `json:"params"`
	Error        string         `json:"error,omitempty"`
	Failure      search.Failure `json:"failure,omitempty"`
	Last         search.Epoch   `json:"last"`
}

func sentTrial(t search.Trial) trial {
	return trial{t.ID, t.System.String(), t.Seed, t.Status, t.Epoch, t.Epochs, t.MultiplyAdds, t.Params, t.Error, t.Failure, t.Last}
}

func (t trial) received() (search.Trial, error) {
	system, err := space.ParseSystem(t.System)
	return search.Trial{ID: t.ID, Key: search.Key{System: system, Seed: t.Seed}, Status: t.Status, Epoch: t.Epoch, Epochs: t.Epochs,
		MultiplyAdds: t.MultiplyAdds, Params: t.Params, Error: t.Error, Failure: t.Failure, Last: t.Last}, err
}

type checkpoint struct {
	Epoch int    `json:"epoch"`
	State []byte `json:"state"`
}

// worker is a store.Worker.
type worker struct {
	ID   int64  `json:"id"`
	Host string `json:"host"`
	PID  int    `json:"pid"`
	Job  string `json:"job,omitempty"`
}

type planRequest struct {
	Program string  `json:"program"`
	Study   *study  `json:"study"`
	Trials  []trial `json:"trials"`
}

type planAnswer struct {
	Trials []trial `json:"trials"` // as they stand
}

type joinRequest struct {
	Protocol int    `json:"protocol"`
	Program  string `json:"program"`
	Worker   worker `json:"worker"`
	Study    string `json:"study,omitempty"` // the only one to work on
}

type joinAnswer struct {
	Studies []*study `json:"studies"` // that the worker may get trials of
}

type beatRequest struct {
	Worker int64 `json:"worker"`
}

type claimRequest struct {
	Worker  int64             `json:"worker"`
	Token   []byte            `json:"token"`
	Study   string            `json:"study,omitempty"`
	Beside  int               `json:"beside"`
	Left    float64           `json:"left"` // seconds, 0 without a limit
	Data    map[string]string `json:"data"` // search.Study.DataSum of the pictures that the worker has, by study
	Attempt attempt           `json:"attempt"`
}

// attempt is a search.Attempt, which starts when the coordinator says so.
type attempt struct {
	Commit    string   `json:"commit"`
	GoVersion string   `json:"go_version"`
	CPU       string   `json:"cpu"`
	ISA       string   `json:"isa"`
	Device    string   `json:"device"`
	Args      []string `json:"args"`
}

// claimAnswer has a turn, a study that the worker has to load the pictures of
// before it asks again, or neither.
type claimAnswer struct {
	Attempt int64       `json:"attempt,omitempty"`
	Note    string      `json:"note,omitempty"`
	From    *checkpoint `json:"from,omitempty"`
	Trial   *trial      `json:"trial,omitempty"`
	Until   int         `json:"until,omitempty"`
	Company bool        `json:"company,omitempty"`
	Most    int         `json:"most,omitempty"`
	Study   *study      `json:"study,omitempty"`
	Load    bool        `json:"load,omitempty"` // the pictures of Study
	Wait    float64     `json:"wait,omitempty"` // seconds
	Over    string      `json:"over,omitempty"` // why there is nothing to do any more
}

// report is the beginning of what is brought of an attempt.
type report struct {
	Worker  int64  `json:"worker"`
	Study   string `json:"study"`
	Trial   int64  `json:"trial"`
	Attempt int64  `json:"attempt"`
	Token   []byte `json:"token"`
}

// epochRequest is followed by the end of a line and the bytes of the state: to
// read them from base64 in JSON would be nearly half of all that a coordinator
// does. In an outbox they are.
type epochRequest struct {
	report
	Epoch      search.Epoch `json:"epoch"`
	Checkpoint checkpoint   `json:"checkpoint"`
}

type epochAnswer struct {
	Stop string `json:"stop,omitempty"` // why the turn is to end here
}

type endRequest struct {
	report
	Status  search.Status  `json:"status"`
	Failure search.Failure `json:"failure,omitempty"`
	Message string         `json:"message,omitempty"`
	Retries int            `json:"retries,omitempty"`
	Most    int            `json:"most,omitempty"`
}

func (e endRequest) outcome() search.Outcome {
	return search.Outcome{Status: e.Status, Failure: e.Failure, Message: e.Message, Retries: e.Retries, Most: e.Most}
}

type endAnswer struct {
	Status search.Status `json:"status"`
}

func (w worker) received() store.Worker {
	return store.Worker{ID: w.ID, Host: w.Host, PID: w.PID, Job: w.Job, Remote: true}
}
