package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func post(body string) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	handle(recorder, httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)))
	return recorder
}

func TestWhomThePayloadNamesIsGreeted(t *testing.T) {
	response := post(`"Ada"`)
	if got, want := strings.TrimSpace(response.Body.String()), `{"hello":"Ada"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAPayloadThatIsNoJSONIsRefused(t *testing.T) {
	if got := post("{").Code; got != http.StatusBadRequest {
		t.Errorf("got status %d, want %d", got, http.StatusBadRequest)
	}
}
