package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxWorkers is the most that a task may ask for.
	maxWorkers = 256
	// orderTime is how long one order may take before it counts as an error.
	orderTime = 60 * time.Second
	// maxFaults is how many different errors are told.
	maxFaults = 20
	// checkedShare is one in how many certificates is parsed and compared with what was asked.
	checkedShare = 20
)

// task is one line of input: so many orders by so many workers at a time.
type task struct {
	Orders      int `json:"orders"`
	Concurrency int `json:"concurrency"`
}

// result is one line of output.
type result struct {
	Orders       int            `json:"orders"`
	Errors       int            `json:"errors"`
	Faults       map[string]int `json:"faults"`
	Seconds      float64        `json:"seconds"`
	Milliseconds []float64      `json:"milliseconds"`
	Requests     int            `json:"requests"`
	Polls        int            `json:"polls"`
	BadNonces    int            `json:"bad_nonces"`
	CPUSeconds   float64        `json:"cpu_seconds"`
}

// crew is the workers, each with an account of its own, made when a task first needs it.
type crew struct {
	settings  settings
	http      *http.Client
	urls      directory
	responder *responder
	workers   []*worker
}

// worker places one order after the other.
type worker struct {
	account   *account
	responder *responder
	zone      string
	leaf      *ecdsa.PrivateKey
	placed    int
	polls     int
}

func newCrew(s settings, client *http.Client, r *responder) (*crew, error) {
	urls, err := fetchDirectory(client, s.directory)
	if err != nil {
		return nil, err
	}
	return &crew{settings: s, http: client, urls: urls, responder: r}, nil
}

func (c *crew) grow(size int) error {
	if size < 1 || size > maxWorkers {
		return fmt.Errorf("concurrency %d is not between 1 and %d", size, maxWorkers)
	}
	for len(c.workers) < size {
		account, err := newAccount(c.http, c.urls)
		if err != nil {
			return err
		}
		if err := account.register(c.settings.bindingID, c.settings.bindingKey); err != nil {
			return err
		}
		leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		c.workers = append(c.workers, &worker{account: account, responder: c.responder, zone: c.settings.zone, leaf: leaf})
	}
	return nil
}

// work does one task and returns its figures.
func (c *crew) work(t task) (result, error) {
	if err := c.grow(t.Concurrency); err != nil {
		return result{}, err
	}
	workers := c.workers[:t.Concurrency]
	before := totals(workers)
	var left atomic.Int64
	left.Store(int64(t.Orders))
	times := make([][]float64, len(workers))
	faults := make([]map[string]int, len(workers))
	var group sync.WaitGroup
	used, began := cpuSeconds(), time.Now()
	for number, one := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			times[number], faults[number] = one.run(&left)
		}()
	}
	group.Wait()
	seconds, after := time.Since(began).Seconds(), totals(workers)
	done := result{
		Seconds:      seconds,
		CPUSeconds:   cpuSeconds() - used,
		Requests:     after.requests - before.requests,
		Polls:        after.polls - before.polls,
		BadNonces:    after.badNonces - before.badNonces,
		Faults:       map[string]int{},
		Milliseconds: []float64{},
	}
	for number := range workers {
		done.Milliseconds = append(done.Milliseconds, times[number]...)
		for fault, count := range faults[number] {
			done.Errors += count
			if len(done.Faults) < maxFaults {
				done.Faults[fault] += count
			}
		}
	}
	done.Orders = len(done.Milliseconds)
	return done, nil
}

type counts struct{ requests, polls, badNonces int }

func totals(workers []*worker) counts {
	var sum counts
	for _, one := range workers {
		sum.requests += one.account.requests
		sum.badNonces += one.account.badNonces
		sum.polls += one.polls
	}
	return sum
}

// cpuSeconds is what this process has used so far, user and system.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func (w *worker) run(left *atomic.Int64) ([]float64, map[string]int) {
	var times []float64
	faults := map[string]int{}
	for left.Add(-1) >= 0 {
		began := time.Now()
		if err := w.order(began.Add(orderTime)); err != nil {
			faults[err.Error()]++
			continue
		}
		times = append(times, float64(time.Since(began).Microseconds())/1000)
	}
	return times, faults
}

// orderObject and authorizationObject hold what is read of RFC 8555 §7.1.3 and §7.1.4.
type orderObject struct {
	Status         string   `json:"status"`
	Authorizations []string `json:"authorizations"`
	Finalize       string   `json:"finalize"`
	Certificate    string   `json:"certificate"`
}

type authorizationObject struct {
	Status     string `json:"status"`
	Challenges []struct {
		Type string `json:"type"`
		URL  string `json:"url"`
	} `json:"challenges"`
}

// order obtains one certificate for a name that nobody has asked for before.
func (w *worker) order(deadline time.Time) error {
	w.placed++
	random := make([]byte, 8)
	rand.Read(random)
	name := "h" + hex.EncodeToString(random) + "." + w.zone
	identifiers := []map[string]string{{"type": "dns", "value": name}}
	placed, err := w.account.post(w.account.directory.NewOrder, map[string]any{"identifiers": identifiers})
	if err != nil {
		return fmt.Errorf("newOrder: %w", err)
	}
	order, err := parsed[orderObject](placed)
	if err != nil {
		return fmt.Errorf("newOrder: %w", err)
	}
	for _, url := range order.Authorizations {
		if err := w.authorize(name, url, deadline); err != nil {
			return err
		}
	}
	return w.finish(name, placed.location, order, deadline)
}

// authorize proves control of name, unless the server asks for no proof.
func (w *worker) authorize(name, url string, deadline time.Time) error {
	var authorization authorizationObject
	if err := w.account.read(url, &authorization); err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	if authorization.Status == "valid" {
		return nil
	}
	w.responder.expect(name, w.account.thumbprint)
	defer w.responder.forget(name)
	for _, challenge := range authorization.Challenges {
		if challenge.Type != "http-01" {
			continue
		}
		if _, err := w.account.post(challenge.URL, struct{}{}); err != nil {
			return fmt.Errorf("challenge: %w", err)
		}
		return w.poll(url, "authorization", deadline, &authorization.Status, &authorization)
	}
	return fmt.Errorf("authorization: no http-01 is offered")
}

// poll reads url into what until status says valid.
func (w *worker) poll(url, kind string, deadline time.Time, status *string, what any) error {
	for n := 0; ; n++ {
		time.Sleep(pollPause(n))
		if err := w.account.read(url, what); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		w.polls++
		switch {
		case *status == "valid":
			return nil
		case *status == "invalid":
			return fmt.Errorf("%s turned invalid", kind)
		case time.Now().After(deadline):
			return fmt.Errorf("%s is still %s", kind, *status)
		}
	}
}

// finish finalizes the order and downloads the certificate.
func (w *worker) finish(name, url string, order orderObject, deadline time.Time) error {
	template := &x509.CertificateRequest{DNSNames: []string{name}}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, w.leaf)
	if err != nil {
		return err
	}
	finalized, err := w.finalize(order.Finalize, base64url.EncodeToString(csr), deadline)
	if err != nil {
		return fmt.Errorf("finalize: %w", err)
	}
	if order, err = parsed[orderObject](finalized); err != nil {
		return fmt.Errorf("finalize: %w", err)
	}
	if order.Status == "invalid" {
		return fmt.Errorf("finalize: the order turned invalid")
	}
	if order.Status != "valid" {
		if err := w.poll(url, "order", deadline, &order.Status, &order); err != nil {
			return err
		}
	}
	chain, err := w.account.post(order.Certificate, nil)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return w.check(name, chain.body)
}

// finalize sends the CSR, again where the server is a moment behind its own authorizations.
func (w *worker) finalize(url, csr string, deadline time.Time) (answer, error) {
	for n := 0; ; n++ {
		got, err := w.account.post(url, map[string]string{"csr": csr})
		problem, isRefusal := err.(*refusal)
		if !isRefusal || !problem.is("orderNotReady") || time.Now().After(deadline) {
			return got, err
		}
		time.Sleep(pollPause(n))
		w.polls++
	}
}

// check sees that a certificate came, and of one in checkedShare that it is the one asked for.
func (w *worker) check(name string, chain []byte) error {
	block, _ := pem.Decode(chain)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("certificate: no PEM came")
	}
	if w.placed%checkedShare != 1 {
		return nil
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if !w.leaf.PublicKey.Equal(certificate.PublicKey) {
		return fmt.Errorf("certificate: it is for another key")
	}
	return certificate.VerifyHostname(name)
}
