-- Deliveries that ended long ago are forgotten (docs/adr/0023): looked for by the time of their end.
CREATE INDEX deliveries_ended ON deliveries (ended_at, delivery_id) WHERE ended_at IS NOT NULL;
