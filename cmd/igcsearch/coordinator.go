package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/cmd/igcsearch/live"
	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/store/fleet"
	"igcsearch/trainer"
)

// coordinator is a server that gives out trials beside the page.
type coordinator struct {
	serveOptions
	*fleet.Coordinator
	log      *progress.Log
	listener net.Listener
	written  fleet.Access // what the access file contains
}

// runCoordinator gives out the trials of studies. It plans them before it opens
// the database, so an error in one of them leaves no database.
func runCoordinator(
	ctx context.Context, o serveOptions, mux *http.ServeMux, certificates []tls.Certificate, stdout, stderr io.Writer,
) error {
	c := &coordinator{serveOptions: o, log: progress.NewLog(stderr)}
	token, err := fleet.TokenOf(o.access)
	if err != nil {
		return err
	}
	if err := removeOver(o.access); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	plans, err := c.plans(ctx, stderr)
	if err != nil {
		return err
	}
	db, err := openRunner(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetGone(new(cluster.Jobs).Gone, c.log.Note)
	c.Coordinator, err = fleet.NewCoordinator(ctx, fleet.Options{
		DB: db, Access: o.access, Token: token, Program: fleetProgram(), Note: c.log.Note,
	})
	if err != nil {
		return err
	}
	for _, p := range plans {
		stored, err := db.Read(ctx, p.study.Name)
		if err == nil {
			if text := changeOf(stored, p.study, p.trials); text != "" {
				c.log.Note(p.study.Name + ": " + text)
			}
		} else if !errors.Is(err, store.ErrNoStudy) {
			return err
		}
		if _, err := c.Plan(ctx, p.study, p.trials); err != nil {
			return err
		}
	}
	c.Register(mux)
	if c.listener, err = o.bind(ctx); err != nil {
		return err
	}
	if err := c.announce(ctx, token, stdout); err != nil {
		c.listener.Close()
		return err
	}
	guard := live.Guard{Keeper: c, Addr: c.listener.Addr(), Proxied: o.advertise != "" || len(o.hosts) > 0}
	return c.serve(ctx, guard.Handler(mux), certificates)
}

type studyPlan struct {
	study  search.Study
	trials []search.Trial
}

// plans reads the studies of the command line and their pictures.
func (c *coordinator) plans(ctx context.Context, stderr io.Writer) ([]studyPlan, error) {
	var plans []studyPlan
	for _, name := range c.studies {
		s, err := studyToTrain(ctx, name, c.set, c.db, stderr)
		if err != nil {
			return nil, err
		}
		s, trials, _, err := planned(ctx, trainer.New(trainer.Options{DataDir: c.data}), s, stderr)
		if err != nil {
			return nil, err
		}
		plans = append(plans, studyPlan{s, trials})
	}
	return plans, nil
}

// announce writes the access file and says where the coordinator is.
func (c *coordinator) announce(ctx context.Context, token string, stdout io.Writer) error {
	own, err := c.accessTo(c.listener.Addr(), token)
	if err != nil {
		return err
	}
	old, err := fleet.ReadAccess(c.access)
	if err == nil && old.Address != own.Address && fleet.Answers(ctx, old) {
		c.log.Note(fmt.Sprintf("another coordinator answers at %s: it keeps its workers, and new ones come here; "+
			"stop one of the two", old.Address))
	}
	if err := own.Write(c.access); err != nil {
		return err
	}
	c.written = own
	if _, err := fmt.Fprintf(stdout, "%s/\n", own.Address); err != nil {
		return err
	}
	c.log.Note(fmt.Sprintf("coordinator of %s: workers join by: %s worker --access %s",
		c.db, program(), quote(c.access)))
	if c.advertise != "" {
		c.log.Note(fmt.Sprintf("listening on %s, which workers reach as %s", c.listener.Addr(), own.Address))
	}
	return nil
}

// serve serves until ctx ends or, with --until-done, until all studies are over.
func (c *coordinator) serve(ctx context.Context, handler http.Handler, certificates []tls.Certificate) error {
	serving, stop := context.WithCancel(ctx)
	var others sync.WaitGroup
	var gone error
	others.Go(func() {
		if gone = c.Keep(serving); gone != nil {
			stop()
		}
	})
	others.Go(func() { c.keepAccess(serving) })
	done, failed := false, 0
	if c.untilDone {
		others.Go(func() {
			defer stop()
			done, failed = c.wait(serving)
		})
	}
	err := live.Serve(serving, c.listener, handler, certificates)
	c.End()
	stop()
	others.Wait()
	if err = cmp.Or(gone, err); err != nil {
		return err
	}
	if !done { // interrupted
		return ctx.Err()
	}
	return c.over(failed)
}

// wait waits until all studies are over and all workers have left. It returns
// false if ctx ends before that. failed is how many trials failed.
func (c *coordinator) wait(ctx context.Context) (done bool, failed int) {
	last := ""
	manned := time.Now() // when a worker was last seen; zero after the note that none is there
	for {
		over, failed, reasons, err := c.Over(ctx)
		if over {
			for _, reason := range reasons {
				c.log.Note(reason)
			}
			return true, failed
		}
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			c.log.Note(last)
		}
		if there, err := c.Manned(ctx); there {
			manned = time.Now()
		} else if err == nil && !manned.IsZero() && time.Since(manned) > time.Minute {
			c.log.Note("no worker is there: the trials that are left wait until one joins")
			manned = time.Time{}
		}
		select {
		case <-ctx.Done():
			return false, 0
		case <-time.After(time.Second):
		}
	}
}

// over tells workers that come later, by the access file, that the studies are
// over.
func (c *coordinator) over(failed int) error {
	path, err := filepath.Abs(c.db)
	if err != nil {
		return err
	}
	c.log.Note("all studies are over, and all workers have left")
	if now, err := fleet.ReadAccess(c.access); err != nil || now == c.written { // otherwise another coordinator has it
		end := c.written
		end.Over = fmt.Sprintf("its studies are over; the results are in the database %s", path)
		if err := end.Write(c.access); err != nil {
			c.log.Note(err.Error()) // workers that come later wait until somebody ends them
		}
	}
	if failed > 0 {
		db := quote(c.db)
		return fmt.Errorf("serve: %s failed: to see why, run: %s status STUDY --db %s; "+
			"fix the cause, then run: %s retry STUDY --db %s", report.Count(failed, "trial"), program(), db, program(),
			db)
	}
	return nil
}

// keepAccess writes the access file again if somebody removed it, or if it
// belongs to another coordinator that does not answer any more.
func (c *coordinator) keepAccess(ctx context.Context) {
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Second):
		}
		now, err := fleet.ReadAccess(c.access)
		good := err == nil && (now == c.written || fleet.Answers(ctx, now))
		if good || err != nil && !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			continue
		}
		text := fmt.Sprintf("the access file %s was removed, or its coordinator does not answer: writing it again",
			c.access)
		if err := c.written.Write(c.access); err != nil {
			text = err.Error()
		}
		if text != last {
			c.log.Note(text)
		}
		last = text
	}
}

// accessTo returns what the access file says of an address.
func (o serveOptions) accessTo(addr net.Addr, token string) (fleet.Access, error) {
	a := fleet.Access{Address: strings.TrimSuffix(o.advertise, "/"), Token: token}
	if o.cert != "" {
		pem, err := os.ReadFile(o.cert)
		if err != nil {
			return a, fmt.Errorf("serve: --tls-cert %s: %w", o.cert, err)
		}
		a.Certificate = string(pem)
	}
	if a.Address != "" {
		return a, nil
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return a, err
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return a, fmt.Errorf("serve: the name of this machine: %w: give --advertise", err)
		}
	}
	a.Address = o.urlOf(net.JoinHostPort(host, port))
	return a, nil
}

func (o serveOptions) urlOf(host string) string {
	if o.cert != "" {
		return "https://" + host
	}
	return "http://" + host
}
