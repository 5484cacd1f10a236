// Package catalog puts Greenplum's relations and functions into an
// instance's template1, so that every database made from it has them:
// gp_segment_configuration, gp_distribution_policy, gp_id, the parameters
// behind pg_settings and current_setting, and the row source through which
// the coordinator's PostgreSQL reads motions.
//
// Everything lives in pg_catalog: it is found without a search_path, does not
// show in \d and \dt, and is left out by pg_dump.
package catalog
