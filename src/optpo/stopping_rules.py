"""The stopping rules by name: where each lives, so that naming one loads nothing."""

RULES = {
    "optpo": "optpo.voting.optpo:OptpoRule",
    "fixed": "optpo.voting.fixed:FixedRule",
    "beta": "optpo.voting.beta:BetaRule",
    "lead": "optpo.voting.lead:LeadRule",
    "window": "optpo.voting.window:WindowRule",
    "curtailed": "optpo.voting.curtailed:CurtailedRule",
    "predictive": "optpo.voting.predictive:PredictiveRule",
    "ppr": "optpo.voting.ppr:PprRule",
    "eprocess": "optpo.voting.eprocess:EprocessRule",
    "dirichlet": "optpo.voting.dirichlet:DirichletRule",
    "frontier": "optpo.voting.frontier:FrontierRule",
}
