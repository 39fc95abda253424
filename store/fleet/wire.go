// Package fleet lets workers on other machines work on the studies of a database. A
// Coordinator runs in the one process that opens the database. A Client runs in each worker
// and is the Desk of the worker's search.Runner. They speak JSON over HTTP.
//
// A request can be sent again at any time: a worker chooses its own number and the token of
// each attempt, so a request that comes a second time changes nothing. Either side may die,
// and the network may lose or delay any message. A worker that cannot reach the coordinator
// goes on training. Its reports wait in a folder, its outbox, until the worker delivers them,
// or the coordinator does so because the worker is gone.
//
// The access file (access.go) holds the address and the secret of a coordinator. Only its
// owner can read it.
package fleet

import (
	"encoding/json"
	"errors"
	"fmt"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// protocol is the version of the messages that this file defines.
const protocol = 3

// The paths of a coordinator. All but pathSnapshot take a POST of JSON. All of them ask for
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

// The largest bodies of requests, in bytes. The body of an epoch holds a checkpoint, which has
// three numbers of four bytes for each parameter of the network.
const (
	maxBody      = 1 << 20
	maxPlanBody  = 64 << 20
	maxEpochBody = 1 << 30
)

// The kinds of errors that a coordinator answers with.
const (
	kindToken      = "token"      // the token is not that of the access file
	kindStranger   = "stranger"   // the worker has to join first
	kindRefused    = "refused"    // the worker is refused for good: it is another program
	kindNoStudy    = "no study"   // the worker is refused for good: its study is not given out
	kindPictures   = "pictures"   // the worker is refused for good: it has other pictures
	kindSuperseded = "superseded" // the error is search.ErrSuperseded
	kindInvalid    = "invalid"    // the request makes no sense, and sending it again does not help
	kindTrouble    = "trouble"    // the coordinator has a problem; the request may succeed later
)

// problem is an error as it is sent.
type problem struct {
	Kind  string `json:"kind"`
	Error string `json:"error"`
}

// study is a search.Study, with the fields that its own JSON leaves out.
type study struct {
	Settings json.RawMessage `json:"settings"`
	Title    string          `json:"title"`
	Run      json.RawMessage `json:"run"`
}

// sentStudy returns a study to be sent.
func sentStudy(s search.Study) *study { return &study{s.Settings(), s.Title, s.Run()} }

// received returns the study that was sent.
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

// trial is a search.Trial.
type trial struct {
	ID           int64          `json:"id,omitempty"`
	System       string         `json:"system"`
	Point        search.Point   `json:"point,omitempty"`
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

// sentTrial returns a trial to be sent.
func sentTrial(t search.Trial) trial {
	return trial{t.ID, t.System.String(), t.At, t.Seed, t.Status, t.Epoch, t.Epochs, t.MultiplyAdds, t.Params,
		t.Error, t.Failure, t.Last}
}

// received returns the trial that was sent.
func (t trial) received() (search.Trial, error) {
	system, err := space.ParseSystem(t.System)
	if p, e := search.ParsePoint(string(t.Point)); err == nil && (e != nil || p != t.Point) {
		err = fmt.Errorf("a trial at %q", t.Point)
	}
	return search.Trial{ID: t.ID, Key: search.Key{System: system, At: t.Point, Seed: t.Seed}, Status: t.Status,
		Epoch: t.Epoch, Epochs: t.Epochs, MultiplyAdds: t.MultiplyAdds, Params: t.Params,
		Error: t.Error, Failure: t.Failure, Last: t.Last}, err
}

// checkpoint is a search.Checkpoint.
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
	Trials []trial `json:"trials"` // all trials of the study, as the database has them
}

type joinRequest struct {
	Protocol int    `json:"protocol"`
	Program  string `json:"program"`
	Worker   worker `json:"worker"`
	Study    string `json:"study,omitempty"` // the only study to work on; "" is any
}

type joinAnswer struct {
	Studies []*study `json:"studies"` // the worker may get trials of these
}

type beatRequest struct {
	Worker int64 `json:"worker"`
}

type claimRequest struct {
	Worker  int64             `json:"worker"`
	Token   []byte            `json:"token"`
	Study   string            `json:"study,omitempty"`
	Beside  int               `json:"beside"`
	Left    float64           `json:"left"` // seconds that the worker may still train, 0 without a limit
	Data    map[string]string `json:"data"` // by study: the DataSum of the pictures that the worker has
	Attempt attempt           `json:"attempt"`
}

// attempt is a search.Attempt without Started, which the coordinator sets, and without the
// fields that it knows of the worker.
type attempt struct {
	Commit    string   `json:"commit"`
	GoVersion string   `json:"go_version"`
	CPU       string   `json:"cpu"`
	ISA       string   `json:"isa"`
	Device    string   `json:"device"`
	Args      []string `json:"args"`
}

// claimAnswer holds a claim; or, with Load set, the study whose pictures the worker has to
// load before it asks again; or neither.
type claimAnswer struct {
	Attempt int64       `json:"attempt,omitempty"` // its number; 0 if no attempt has begun
	Note    string      `json:"note,omitempty"`
	From    *checkpoint `json:"from,omitempty"`
	Trial   *trial      `json:"trial,omitempty"`
	Until   int         `json:"until,omitempty"`
	Company bool        `json:"company,omitempty"`
	Most    int         `json:"most,omitempty"`
	Study   *study      `json:"study,omitempty"`
	Load    bool        `json:"load,omitempty"` // load the pictures of Study first
	Wait    float64     `json:"wait,omitempty"` // ask again after so many seconds
	Over    string      `json:"over,omitempty"` // the reason why no trial will begin any more
}

// report says of which attempt an epoch or an end is reported.
type report struct {
	Worker  int64  `json:"worker"`
	Study   string `json:"study"`
	Trial   int64  `json:"trial"`
	Attempt int64  `json:"attempt"`
	Token   []byte `json:"token"`
}

// epochRequest reports an epoch. Over HTTP, a newline and the bytes of the state follow its
// JSON, because reading them from base64 in JSON took nearly half of a coordinator's time. In
// an outbox, the JSON holds the state.
type epochRequest struct {
	report
	Epoch      search.Epoch `json:"epoch"`
	Checkpoint checkpoint   `json:"checkpoint"`
}

type epochAnswer struct {
	Stop string `json:"stop,omitempty"` // the reason why the attempt has to end here
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

// received returns the store.Worker that was sent. It is a remote one.
func (w worker) received() store.Worker {
	return store.Worker{ID: w.ID, Host: w.Host, PID: w.PID, Job: w.Job, Remote: true}
}
