package main

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/live"
	"igcsearch/search"
	"igcsearch/store/fleet"
	"igcsearch/trainer"
)

type serveOptions struct {
	studies   []string
	set       []string
	db        string
	data      string
	listen    string
	access    string // "": only the page
	advertise string // URL; "": by the name of this machine
	cert, key string
	untilDone bool
}

func newServeCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve [STUDY...]",
		Short: "Show the studies of a database as a web page; give out trials to workers elsewhere",
		Long: `serve shows how the studies of a database go on, in a browser: progress and time
left, accuracy against M, learning curves, what runs where, failures, hours used,
and downloads. It prints the address of the page and serves until it is
interrupted. The page only reads: it can be opened before a study starts, and
stays when it has ended.

With --access it is a coordinator too: it opens the database, plans each STUDY, and
gives out their trials to workers on other machines (igcsearch worker), by the same
rules and to the same bits as a run. It writes its address and a secret token into
FILE, which only its owner can read; whoever has the file can work, and write
results. Started again with the same database it goes on with the studies that it
had; workers train on meanwhile.

Without --listen only this machine can reach it. To open the page elsewhere,
forward the port: ssh -L 8080:localhost:PORT MACHINE. Whoever can reach the address of a
page alone can read the results; that of a coordinator asks others than this
machine for the token: http://ADDRESS/?token=TOKEN.`,
		Example: `  igcsearch serve

  # an address that stays the same
  igcsearch serve --db igcsearch.db --listen 127.0.0.1:8080

  # a coordinator for workers on other machines, which see the file too
  igcsearch serve quickstart --access quickstart.access --listen :0 --until-done`,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.studies = args
			return runServe(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	flags := cmd.Flags()
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "the `ADDRESS` to listen on, HOST:PORT; port 0 is a free one, no HOST is all of this machine")
	flags.StringVar(&o.access, "access", "", "give out trials, and write address and token into this `FILE`")
	flags.StringVar(&o.advertise, "advertise", "", "the `URL` by which workers reach this address (default by the name of this machine)")
	flags.StringVar(&o.cert, "tls-cert", "", "serve HTTPS with this certificate, a PEM `FILE`; workers trust it")
	flags.StringVar(&o.key, "tls-key", "", "the key of the certificate, a PEM `FILE`")
	flags.StringArrayVar(&o.set, "set", nil, "override one setting of each STUDY, as `key=value`; may be repeated")
	flags.BoolVar(&o.untilDone, "until-done", false, "end when all studies are done and all workers have left")
	return cmd
}

func (o serveOptions) check() error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("--listen %q: want HOST:PORT, like 127.0.0.1:8080", o.listen)
	}
	if (o.cert == "") != (o.key == "") {
		return errors.New("--tls-cert and --tls-key belong together: give both")
	}
	if u, err := url.Parse(o.advertise); o.advertise != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return fmt.Errorf("--advertise %q: want a URL, like http://node1:8080", o.advertise)
	}
	if o.access == "" {
		for _, extra := range []struct {
			given bool
			name  string
		}{{len(o.studies) > 0, "STUDY"}, {len(o.set) > 0, "--set"}, {o.advertise != "", "--advertise"}, {o.untilDone, "--until-done"}} {
			if extra.given {
				return fmt.Errorf("%s is for a coordinator: give --access too", extra.name)
			}
		}
	}
	return nil
}

func runServe(ctx context.Context, o serveOptions, stdout, stderr io.Writer) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	if err := notAccess(o.db); err != nil {
		return err
	}
	var certificates []tls.Certificate
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return fmt.Errorf("serve: --tls-cert %s: %w", o.cert, err)
		}
		certificates = append(certificates, pair)
	}
	mux := http.NewServeMux()
	live.New(&watched{path: o.db}).Register(mux)
	if o.access != "" {
		return runCoordinator(ctx, o, mux, certificates, stdout, stderr)
	}
	listener, err := o.bind(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "%s/\n", o.urlOf(listener.Addr().String())); err != nil {
		listener.Close()
		return err
	}
	if err := serveUntil(ctx, listener, byOwnName(mux), certificates); err != nil {
		return err
	}
	return ctx.Err()
}

// byOwnName lets a browser of this machine see the page only by a name of this
// machine: not a page elsewhere, whose name resolves to it.
func byOwnName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) && !near(r) {
			http.Error(w, "Open this page by the name or the address of the machine.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (o serveOptions) bind(ctx context.Context) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return nil, fmt.Errorf("serve: %w: give another --listen", err)
	}
	return listener, nil
}

func (o serveOptions) urlOf(host string) string {
	if o.cert != "" {
		return "https://" + host
	}
	return "http://" + host
}

// serveUntil serves until ctx ends.
func serveUntil(ctx context.Context, listener net.Listener, handler http.Handler, certificates []tls.Certificate) error {
	server := &http.Server{
		Handler: handler,
		// No limit for a whole request or answer: events go on for hours.
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16,
		// The streams of events end with ctx; Shutdown would wait for them.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	if len(certificates) > 0 {
		server.TLSConfig = &tls.Config{Certificates: certificates, NextProtos: []string{"h2", "http/1.1"}}
		listener = tls.NewListener(listener, server.TLSConfig)
	}
	stopped := make(chan error, 1)
	defer context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		err := server.Shutdown(wait)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // a download that takes its time
		}
		stopped <- err
	})()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// runCoordinator gives out trials beside the page.
func runCoordinator(ctx context.Context, o serveOptions, mux *http.ServeMux, certificates []tls.Certificate, stdout, stderr io.Writer) (err error) {
	log := &jobLog{out: stderr}
	token, err := fleet.TokenOf(o.access)
	if err != nil {
		return err
	}
	// What a coordinator before left there would send workers home.
	if old, err := fleet.ReadAccess(o.access); err == nil && old.Over != "" {
		if err := os.Remove(o.access); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	type plan struct {
		search.Study
		trials []search.Trial
	}
	var plans []plan
	for _, name := range o.studies {
		s, err := loadStudy(name, o.set)
		if err != nil {
			return err
		}
		s, trials, _, err := planned(ctx, trainer.New(trainer.Options{DataDir: o.data}), s, stderr)
		if err != nil {
			return err
		}
		plans = append(plans, plan{s, trials})
	}
	db, err := openRunner(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	coordinator, err := fleet.NewCoordinator(ctx, fleet.Options{DB: db, Access: o.access, Token: token, Program: fleetProgram(), Note: log.note})
	if err != nil {
		return err
	}
	for _, p := range plans {
		if _, err := coordinator.Plan(ctx, p.Study, p.trials); err != nil {
			return err
		}
	}
	coordinator.Register(mux)
	listener, err := o.bind(ctx)
	if err != nil {
		return err
	}
	access, err := o.accessTo(listener.Addr(), token)
	if err == nil {
		if old, e := fleet.ReadAccess(o.access); e == nil && old.Address != access.Address && fleet.Answers(ctx, old) {
			log.note(fmt.Sprintf("another coordinator answers at %s: it keeps the workers that it has, new ones come here; stop one of the two", old.Address))
		}
		err = access.Write(o.access)
	}
	if err == nil {
		_, err = fmt.Fprintf(stdout, "%s/\n", access.Address)
	}
	if err != nil {
		listener.Close()
		return err
	}
	log.note(fmt.Sprintf("coordinator of %s: workers join by: %s worker --access %s", o.db, program(), quote(o.access)))
	if o.advertise != "" {
		log.note(fmt.Sprintf("listening on %s, which workers reach as %s", listener.Addr(), access.Address))
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() { coordinator.Keep(ctx) })
	others.Go(func() { keepAccess(ctx, access, o.access, log) })
	if !o.untilDone {
		err := serveUntil(ctx, listener, o.guarded(mux, coordinator, listener.Addr()), certificates)
		coordinator.End()
		return cmp.Or(err, ctx.Err())
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	done, failed := false, 0
	others.Go(func() {
		defer stop()
		done, failed = untilOver(serving, coordinator, log)
	})
	err = serveUntil(serving, listener, o.guarded(mux, coordinator, listener.Addr()), certificates)
	coordinator.End()
	cancel()
	others.Wait()
	if err != nil {
		return err
	}
	if !done { // interrupted
		return ctx.Err()
	}
	path, err := filepath.Abs(o.db)
	if err != nil {
		return err
	}
	log.note("all studies are over, and all workers have left")
	if now, err := fleet.ReadAccess(o.access); err != nil || now == access { // else it is another coordinator's by now
		access.Over = fmt.Sprintf("its studies are over; the results are in the database %s", path)
		if err := access.Write(o.access); err != nil {
			log.note(err.Error()) // workers that come later wait until somebody ends them
		}
	}
	if failed > 0 {
		return fmt.Errorf("serve: %s failed: %s status STUDY --db %s says why; mend that, then: %s retry STUDY --db %s", count(failed, "trial"), program(), quote(o.db), program(), quote(o.db))
	}
	return nil
}

// keepAccess writes the access file again if somebody removed it, or if the
// coordinator that took it over is there no more.
func keepAccess(ctx context.Context, own fleet.Access, path string, log *jobLog) {
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Second):
		}
		now, err := fleet.ReadAccess(path)
		if err == nil && (now == own || fleet.Answers(ctx, now)) || err != nil && !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			continue
		}
		text := fmt.Sprintf("the access file %s was removed or of a coordinator that is gone; it is written again", path)
		if err := own.Write(path); err != nil {
			text = err.Error()
		}
		if text != last {
			log.note(text)
		}
		last = text
	}
}

// untilOver waits for the end of all studies and of all workers; false if ctx
// ends before. failed are the trials that failed.
func untilOver(ctx context.Context, c *fleet.Coordinator, log *jobLog) (done bool, failed int) {
	last := ""
	manned := time.Now() // when a worker was seen last; zero once people were told
	for {
		over, failed, reasons, err := c.Over(ctx)
		if over {
			for _, reason := range reasons {
				log.note(reason)
			}
			return true, failed
		}
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			log.note(last)
		}
		if there, err := c.Manned(ctx); there {
			manned = time.Now()
		} else if err == nil && !manned.IsZero() && time.Since(manned) > time.Minute {
			log.note("no worker is there; what is left waits for one")
			manned = time.Time{}
		}
		select {
		case <-ctx.Done():
			return false, 0
		case <-time.After(time.Second):
		}
	}
}

// accessTo is what workers are told of an address.
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

// guarded lets others than this machine see the page only with the token: in the
// address, after which a cookie will do, or as the coordinator's own paths ask for
// it. Behind --advertise may be a proxy, whose peers all seem near. The assets hold
// nothing.
func (o serveOptions) guarded(next http.Handler, c *fleet.Coordinator, addr net.Addr) http.Handler {
	name := "igcsearch" // cookies do not know ports
	if _, port, err := net.SplitHostPort(addr.String()); err == nil {
		name += "-" + port
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie(name)
		token := r.URL.Query().Get("token")
		bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/"), strings.HasPrefix(r.URL.Path, "/assets/"), o.advertise == "" && near(r),
			err == nil && hmac.Equal([]byte(cookie.Value), []byte(c.PageKey())), c.Admits(bearer):
			next.ServeHTTP(w, r)
		case token != "" && c.Admits(token):
			http.SetCookie(w, &http.Cookie{Name: name, Value: c.PageKey(), Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
			http.Redirect(w, r, "/"+strings.TrimLeft(r.URL.Path, "/"), http.StatusSeeOther)
		default:
			http.Error(w, "Open this page as http://ADDRESS/?token=TOKEN with the token of the coordinator's access file, or by ssh -L from the machine that it runs on.", http.StatusUnauthorized)
		}
	})
}

// near reports whether a request is of this machine, and for it by name: not by the
// name of a page elsewhere that resolves to this one.
func near(r *http.Request) bool {
	if !fromHere(r) {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if name, err := os.Hostname(); err == nil && host == name {
		return true
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

func fromHere(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(peer).IsLoopback()
}
